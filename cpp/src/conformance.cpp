#include "conformance.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <iomanip>
#include <limits>
#include <sstream>

#include "dtypes.hpp"
#include "error.hpp"
#include "npz.hpp"
#include "processor.hpp"
#include "sha256.hpp"
#include "text.hpp"
#include "verdict_cache.hpp"

namespace pd {
namespace {

namespace fs = std::filesystem;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// As in perceiver_deploy/runtimes/checks/bounds.py.
constexpr double kRoundingFactor = 100, kRoundingFloor = 1e-5, kBroken = 0.5;

constexpr std::string_view kSamples = "samples/", kSuffix = ".npz", kPreferred = "samples/opt.npz";

// The golden sample that is run; empty where the bundle has none.
std::string sample_file(const Manifest &manifest) {
  std::string first;
  for (const auto &[path, entry] : manifest.files) {
    if (path == kPreferred) return path;
    const bool is_sample = path.rfind(kSamples, 0) == 0 && fs::path(path).extension() == kSuffix;
    if (is_sample && (first.empty() || path < first)) first = path;
  }
  return first;
}

double of_half(std::uint16_t bits) {
  const int exponent = bits >> 10 & 0x1f, fraction = bits & 0x3ff;
  const double size = exponent == 0    ? std::ldexp(fraction, -24)
                      : exponent < 31  ? std::ldexp(fraction + 1024, exponent - 25)
                      : fraction == 0  ? kInfinity
                                       : std::numeric_limits<double>::quiet_NaN();
  return bits >> 15 ? -size : size;
}

template <class T>
T element(const pd_tensor &tensor, std::size_t index) {
  T value;
  std::memcpy(&value, static_cast<const char *>(tensor.data) + index * sizeof(T), sizeof(T));
  return value;
}

double number(const pd_tensor &tensor, std::size_t index) {
  switch (tensor.dtype) {
    case PD_FLOAT32:
      return element<float>(tensor, index);
    case PD_FLOAT16:
      return of_half(element<std::uint16_t>(tensor, index));
    case PD_FLOAT64:
      return element<double>(tensor, index);
    case PD_INT64:
      return static_cast<double>(element<std::int64_t>(tensor, index));
    case PD_INT32:
      return element<std::int32_t>(tensor, index);
    case PD_INT16:
      return element<std::int16_t>(tensor, index);
    default:
      return element<std::uint8_t>(tensor, index);
  }
}

bool same_shape(const pd_tensor &one, const pd_tensor &other) {
  return std::equal(one.shape, one.shape + one.rank, other.shape, other.shape + other.rank);
}

// Norm of the difference of two arrays of one shape over that of `wanted`, or alone where the latter is 0; infinite where
// a value is not finite.
double relative_l2(const pd_tensor &found, const pd_tensor &wanted) {
  double error = 0, norm = 0;
  const std::size_t count = wanted.bytes / dtype_info(wanted.dtype)->bytes;
  for (std::size_t index = 0; index < count; ++index) {
    const double value = number(wanted, index), difference = number(found, index) - value;
    error += difference * difference;
    norm += value * value;
  }
  const double distance = norm > 0 ? std::sqrt(error) / std::sqrt(norm) : std::sqrt(error);
  return std::isfinite(distance) ? distance : kInfinity;
}

// What one output is held to.
struct Expected {
  pd_tensor wanted;
  double bound;
};

pd_tensor array_named(Named<Array> &arrays, const std::string &name) {
  for (auto &[key, array] : arrays) {
    if (key == name) return array.tensor(key.c_str());
  }
  throw BundleError(concat("there is no ", repr(name)));
}

// Eager's float64 outputs, within what float32 itself is off by.
Expected eager_outputs(Named<Array> &sample, const std::string &output) {
  const pd_tensor wanted = array_named(sample, "float64." + output), rounded = array_named(sample, "float32." + output);
  const double error = same_shape(rounded, wanted) ? relative_l2(rounded, wanted) : kInfinity;
  const double bound = std::isfinite(error) ? std::max(kRoundingFloor, kRoundingFactor * error) : kRoundingFloor;
  return {wanted, std::min(bound, kBroken)};
}

// The graph's own outputs, with the bound that was found with them.
Expected graph_outputs(Named<Array> &exact, const std::string &way, const std::string &output) {
  const pd_tensor bound = array_named(exact, concat(way, "_bound.", output));
  const bool usable = bound.rank == 0 && std::isfinite(number(bound, 0)) && number(bound, 0) >= 0;
  if (!usable) throw BundleError(concat(repr(bound.name), " is no bound"));
  return {array_named(exact, concat(way, ".", output)), number(bound, 0)};
}

// What was read of the bundle.
struct Golden {
  std::string sample_path, exact_path;  // relative to the bundle; there are no exact outputs of fp32
  Named<Array> sample, exact;

  std::vector<pd_tensor> inputs() {
    constexpr std::string_view kInputs = "inputs.";
    std::vector<pd_tensor> all;
    for (auto &[key, array] : sample) {
      if (key.rfind(kInputs, 0) == 0) all.push_back(array.tensor(key.c_str() + kInputs.size()));
    }
    return all;
  }
};

Expected expected_of(const Subject &subject, Golden &golden, const std::vector<Output> &outputs,
                     const std::string &output) {
  try {
    return golden.exact_path.empty() ? eager_outputs(golden.sample, output)
                                     : graph_outputs(golden.exact, subject.way, output);
  } catch (const BundleError &error) {
    if (golden.exact_path.empty()) {
      throw BundleError(
          concat(subject.bundle.path(), "/", golden.sample_path, " is not a golden sample: ", error.what(), "."));
    }
    throw BundleError(
        concat(subject.bundle.path(), "/", golden.exact_path, " does not hold what ", subject.variant, " gives by ",
               subject.way, "; expected outputs and bounds of ",
               joined(outputs, [](const Output &item) { return item.name; }),
               ". Add them anew with: perceiver-deploy validate ", subject.bundle.path(), " --add-exact"));
  }
}

Verdict judge(const Subject &subject, Golden &golden, const RunWhole &run) {
  const std::vector<pd_tensor> inputs = golden.inputs();
  const std::string sample = fs::path(golden.sample_path).stem().string();
  std::vector<Output> outputs;
  try {
    outputs = run({inputs.data(), inputs.size()});
  } catch (const ParityError &error) {  // another rank, size or dtype than the manifest says
    return {false, sample, "", kInfinity, 0, error.what()};
  }
  Verdict worst{true, sample, "", 0, 0, ""};
  double farthest = -1;
  for (const Output &output : outputs) {
    const Expected expected = expected_of(subject, golden, outputs, output.name);
    const pd_tensor found = output.tensor();
    const double distance = same_shape(found, expected.wanted) ? relative_l2(found, expected.wanted) : kInfinity;
    const double share = distance > 0 ? distance / expected.bound : 0;
    if (share <= farthest) continue;
    farthest = share;
    worst = {distance <= expected.bound, sample, output.name, distance, expected.bound, ""};
  }
  return worst;
}

// A name that says all that a verdict depends on.
std::string key_of(const Subject &subject, const std::string &sample, const std::string &exact) {
  Sha256 hash;
  const auto add = [&](const std::string &text) {
    hash.update(text.data(), text.size());
    hash.update("\n", 1);
  };
  for (const std::string &file : subject.files)
    add(subject.bundle.graph_digest(file));
  for (const std::string &file : {sample, exact})
    add(file.empty() ? "" : find(subject.bundle.manifest().files, file)->sha256);
  for (const std::string &text : {subject.variant, subject.way, subject.runtime, subject.version, subject.device})
    add(text);
  add(processor_kind());
  add(PD_RELEASE);
  return hash.finish();
}

// As a number with one digit after the point, whatever the program's locale: "1.0e-05".
std::string short_text(double value) {
  std::ostringstream stream;
  stream.imbue(std::locale::classic());
  stream << std::scientific << std::setprecision(1) << value;
  return stream.str();
}

}  // namespace

std::string Verdict::text() const {
  if (!problem.empty()) return concat("the golden sample ", repr(sample), ": ", problem);
  const std::string off = std::isfinite(distance) ? concat("off by ", short_text(distance), " (relative L2)") : "not finite";
  return concat("output ", repr(output), " of the golden sample ", repr(sample), " is ", off,
                ", where rounding allows at most ", short_text(bound));
}

std::string Conformance::text() const {
  if (!verdict) return "unknown: " + unknown;
  return verdict->conforms ? "conforms" : "does not conform: " + verdict->text();
}

ParityError Subject::refusal(const Verdict &verdict) const {
  std::string seen = verdict.text();
  if (seen.back() == '.') seen.pop_back();
  return ParityError(concat("Variant ", repr(variant), " in ", runtime, " ", version,
                            " does not give the numbers of its own graph on this processor (", processor_kind(),
                            "): ", seen,
                            ". Use another runtime, or a variant that conforms here, such as fp32. "
                            "allow_nonconforming opens it all the same."));
}

Conformance find_conformance(const Subject &subject, const RunWhole &run, bool anew) {
  const Bundle &bundle = subject.bundle;
  Golden golden;
  golden.sample_path = sample_file(bundle.manifest());
  if (golden.sample_path.empty()) return {std::nullopt, bundle.path() + " has no golden samples"};
  if (bundle.variant(subject.variant).precision != "fp32") {
    golden.exact_path = concat("exact/", subject.variant, "/", fs::path(golden.sample_path).filename().string());
    if (find(bundle.manifest().files, golden.exact_path) == nullptr) {
      return {std::nullopt, concat(bundle.path(), " has no exact outputs of it. Add them with: perceiver-deploy validate ",
                                   bundle.path(), " --add-exact")};
    }
  }
  const std::string key = key_of(subject, golden.sample_path, golden.exact_path);
  if (!anew) {
    if (const auto kept = kept_verdict(key)) return {kept, ""};
  }
  for (const auto &[path, arrays] : {std::pair(&golden.sample_path, &golden.sample), {&golden.exact_path, &golden.exact}}) {
    if (path->empty()) continue;
    auto read = read_npz(bundle.file(*path));
    if (!read) {
      return {std::nullopt, concat(*path, " is compressed, as older versions of perceiver-deploy wrote it. Write it "
                                          "anew with: perceiver-deploy validate ",
                                   bundle.path(), " --add-exact")};
    }
    *arrays = std::move(*read);
  }
  try {
    const Verdict verdict = judge(subject, golden, run);
    keep_verdict(key, verdict);
    return {verdict, ""};
  } catch (const InputError &error) {  // an engine was built for other sizes
    return {std::nullopt, concat(golden.sample_path, " cannot be run: ", error.what())};
  } catch (const UsageError &error) {  // the decoder takes what the inputs of the whole model do not say
    return {std::nullopt, concat(golden.sample_path, " cannot be run: ", error.what())};
  }
}

}  // namespace pd
