#include "side_car.hpp"

#include <algorithm>

#include "error.hpp"
#include "files.hpp"
#include "schema.hpp"
#include "text.hpp"

namespace pd {
namespace {

std::string joined_by(const std::string &separator, const std::vector<std::string> &parts) {
  std::string all;
  for (const std::string &part : parts)
    all += (all.empty() ? "" : separator) + part;
  return all;
}

// The numbers in a version: "10.13.3" is 10, 13, 3.
std::vector<long> numbers(const std::string &version) {
  std::vector<long> found;
  bool inside = false;
  for (const char letter : version) {
    const bool digit = letter >= '0' && letter <= '9';
    if (digit && !inside) found.push_back(0);
    if (digit) found.back() = std::min(found.back(), 100000000L) * 10 + (letter - '0');
    inside = digit;
  }
  return found;
}

bool is_later(const std::string &here, const std::string &built) {
  const auto ours = numbers(here), theirs = numbers(built);
  return !ours.empty() && !theirs.empty() && ours[0] == theirs[0] && ours >= theirs;
}

template <class T>
Named<Range<T>> read_ranges(const Json &json) {
  Named<Range<T>> ranges;
  for (auto item = json.begin(); item != json.end(); ++item) {
    const Json &range = *item;
    ranges.emplace_back(item.key(), Range<T>{range.at("min").get<T>(), range.at("opt").get<T>(), range.at("max").get<T>()});
  }
  return ranges;
}

SideCar parse(const Json &json) {
  SideCar side_car;
  const auto text = [&](const char *name) { return json.at(name).get<std::string>(); };
  side_car.engine = text("engine");
  side_car.variant = text("variant");
  side_car.stage = text("stage");
  side_car.tensorrt_version = text("tensorrt_version");
  side_car.compute_capabilities = json.at("compute_capabilities").get<std::vector<std::string>>();
  side_car.system = json.at("os").at("system").get<std::string>();
  side_car.machine = json.at("os").at("machine").get<std::string>();
  if (!json.at("driver").is_null()) side_car.driver = text("driver");
  side_car.weights_stripped = json.at("weights_stripped").get<bool>();
  side_car.hardware_compatible = json.at("hardware_compatible").get<bool>();
  side_car.version_compatible = json.at("version_compatible").get<bool>();
  for (const Json &profile : json.at("axes"))
    side_car.axes.push_back(read_ranges<std::int64_t>(profile));
  for (const Json &profile : json.at("shape_profiles"))
    side_car.profiles.push_back(read_ranges<Shape>(profile));
  return side_car;
}

bool takes(const Named<Range<Shape>> &profile, const Tensors &inputs) {
  return std::all_of(inputs.begin(), inputs.end(), [&](const pd_tensor &input) {
    const Range<Shape> *range = find(profile, input.name);
    if (range == nullptr || range->min.size() != input.rank || range->max.size() != input.rank) return false;
    for (std::size_t index = 0; index < input.rank; ++index) {
      if (input.shape[index] < range->min[index] || input.shape[index] > range->max[index]) return false;
    }
    return true;
  });
}

std::vector<Shape> largest(const Named<Range<Shape>> &profile) {
  std::vector<Shape> shapes;
  for (const auto &[name, range] : profile)
    shapes.push_back(range.max);
  return shapes;
}

std::string axis_text(const std::string &name, const Range<std::int64_t> &range) {
  return concat(name, "=", range.min, ":", range.opt, ":", range.max);
}

const char *title(const std::string &engine) {
  return engine == "tensorrt-rtx" ? "TensorRT-RTX" : "TensorRT";
}

std::vector<std::string> mismatches(const SideCar &side_car, const Machine &machine) {
  std::vector<std::string> problems;
  const std::string &built = side_car.tensorrt_version, &here = machine.tensorrt_version;
  if (built != here && !(side_car.version_compatible && is_later(here, built))) {
    problems.push_back(concat("it was built by ", title(side_car.engine), " ", built, ", and ", here, " is installed"));
  }
  const auto &capabilities = side_car.compute_capabilities;
  const bool named = std::count(capabilities.begin(), capabilities.end(), machine.compute_capability) != 0;
  const bool compatible = side_car.hardware_compatible && numbers(machine.compute_capability) >= std::vector<long>{8, 0};
  if (!named && !compatible) {
    problems.push_back(concat("it is for compute capability ", joined_by(", ", capabilities), ", and ", machine.gpu,
                              " has ", machine.compute_capability));
  }
  if (side_car.system != machine.system || side_car.machine != machine.machine) {
    problems.push_back(concat("it was built on ", side_car.system, " ", side_car.machine, ", and this is ",
                              machine.system, " ", machine.machine));
  }
  if (side_car.driver && machine.driver && numbers(*machine.driver) < numbers(*side_car.driver)) {
    problems.push_back(
        concat("it was built with the driver ", *side_car.driver, ", and this is the older ", *machine.driver));
  }
  return problems;
}

std::string rebuild_command(const SideCar &side_car, const std::string &bundle, const std::string &name,
                            const std::string &capability) {
  std::vector<std::string> parts = {
      concat("perceiver-deploy build ", bundle, " --engine ", side_car.engine, " --variant ", side_car.variant)};
  if (side_car.stage != "full") parts.push_back("--stage " + side_car.stage);
  if (side_car.engine == "tensorrt-rtx") parts.push_back("--compute-capability " + capability);
  for (const auto &profile : side_car.axes) {
    for (const auto &[axis, range] : profile)
      parts.push_back("--shapes " + axis_text(axis, range));
  }
  parts.push_back(concat("--name ", name, " --force"));
  return joined_by(" ", parts);
}

}  // namespace

std::size_t SideCar::profile_for(const Tensors &inputs) const {
  std::optional<std::size_t> best;
  for (std::size_t number = 0; number < profiles.size(); ++number) {
    if (!takes(profiles[number], inputs)) continue;
    if (!best || largest(profiles[number]) < largest(profiles[*best])) best = number;
  }
  if (best) return *best;
  const std::string given =
      joined(inputs, [](const pd_tensor &input) { return concat(input.name, " ", list_text(input.shape, input.rank)); });
  std::vector<std::string> known;
  for (const auto &profile : axes)
    known.push_back(joined(profile, [](const auto &axis) { return axis_text(axis.first, axis.second); }));
  throw InputError(concat("The engine has no profile for ", given, "; its profiles are ", joined_by("; ", known),
                          ". Change the input's size, or build an engine with --shapes for it."));
}

SideCar read_side_car(const Bundle &bundle, const std::string &name) {
  std::string file = find(bundle.manifest().engines, name)->file;
  constexpr std::string_view ending = ".engine";
  if (file.size() > ending.size() && file.compare(file.size() - ending.size(), ending.size(), ending) == 0) {
    file.resize(file.size() - ending.size());
  }
  const std::string path = bundle.file(file + ".json");
  try {
    return parse(Json::parse(read_file(path)));
  } catch (const Json::exception &error) {
    throw BundleError(concat(path, " is not the side-car of an engine (", error.what(),
                             "). Build the engine again, with --force."));
  }
}

std::string engine_of(const Bundle &bundle, const std::string &runtime, const std::string &variant,
                      const std::string &stage) {
  const auto &engines = bundle.manifest().engines;
  for (auto engine = engines.rbegin(); engine != engines.rend(); ++engine) {
    const auto &[name, entry] = *engine;
    if (entry.variant == variant && entry.stage == stage && read_side_car(bundle, name).engine == runtime) return name;
  }
  throw BundleError(concat(bundle.path(), " has no ", runtime, " engine of variant ", repr(variant), ", stage ",
                           repr(stage), ". Build one with: perceiver-deploy build ", bundle.path(), " --engine ",
                           runtime, " --variant ", variant, stage == "full" ? "" : " --stage " + stage));
}

void require_loadable(const SideCar &side_car, const Machine &machine, const std::string &bundle,
                      const std::string &name) {
  const std::vector<std::string> problems = mismatches(side_car, machine);
  if (problems.empty()) return;
  throw BundleError(concat("Engine ", repr(name), " of ", bundle, " cannot run here: ", joined_by("; ", problems),
                           ". Build it again with: ",
                           rebuild_command(side_car, bundle, name, machine.compute_capability)));
}

}  // namespace pd
