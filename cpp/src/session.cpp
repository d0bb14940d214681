#include "session.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>

#include "dtypes.hpp"
#include "engine.hpp"
#include "error.hpp"
#include "ort.hpp"
#include "output_check.hpp"
#include "queries.hpp"
#include "side_car.hpp"
#include "text.hpp"

namespace pd {
namespace {

// Each runtime, and those whose variants it takes: TensorRT and TensorRT-RTX take the same graphs, CUDA those of
// onnxruntime.
struct Runtime {
  std::string_view name;
  std::vector<std::string_view> reads;
};
const std::vector<Runtime> &runtimes() {
  static const std::vector<Runtime> all = {
#include "runtimes.inc"
  };
  return all;
}

std::string choose_variant(const Bundle &bundle, const Options &options) {
  if (options.threads && (*options.threads < 1 || *options.threads > std::numeric_limits<int>::max())) {
    throw UsageError(concat("threads is ", *options.threads, "; expected at least 1."));
  }
  if (options.variant && options.precision) {
    throw UsageError(
        concat("Give variant (", repr(*options.variant), ") or precision (", repr(*options.precision), "), not both."));
  }
  return options.precision ? bundle.variant_of(*options.precision) : options.variant.value_or("fp32");
}

std::string choose_runtime(const Variant &variant, const std::string &name, const std::string &wanted) {
  const auto suits = [&](std::string_view runtime) {
    return std::find(variant.runtimes.begin(), variant.runtimes.end(), runtime) != variant.runtimes.end();
  };
  const std::string suited = joined(variant.runtimes, [](const std::string &runtime) { return runtime; });
  if (wanted == "auto") {
    if (suits("onnxruntime")) return "onnxruntime";
    throw MissingError(concat("Variant ", repr(name), " is for ", suited,
                              ", and this library runs onnxruntime. Convert or export it with: --for onnxruntime"));
  }
  const auto &all = runtimes();
  const auto found = std::find_if(all.begin(), all.end(), [&](const Runtime &item) { return item.name == wanted; });
  if (found == all.end()) {
    throw UsageError(concat("There is no runtime ", repr(wanted), "; expected auto, ",
                            joined(all, [](const Runtime &item) { return item.name; }), "."));
  }
  if (std::none_of(found->reads.begin(), found->reads.end(), suits)) {
    throw BundleError(concat("Variant ", repr(name), " is for ", suited, ", not for ", wanted, "."));
  }
  return wanted;
}

void check_output(const pd_tensor &tensor, const std::vector<TensorSpec> &specs, const Sizes &sizes) {
  const auto spec =
      std::find_if(specs.begin(), specs.end(), [&](const auto &item) { return item.name == tensor.name; });
  if (spec == specs.end()) {
    throw InputError(concat("There is no output ", repr(tensor.name), ". The outputs are: ",
                            joined(specs, [](const TensorSpec &item) { return item.name; }), "."));
  }
  const DtypeInfo *info = dtype_info(tensor.dtype);
  const std::string_view expected = dtype_info(spec->dtype)->name;
  if (tensor.dtype != spec->dtype) {
    throw InputError(concat("The memory for output ", repr(spec->name), " has dtype ",
                            info ? info->name : concat("number ", tensor.dtype), "; expected ", expected, "."));
  }
  if (!has_shape(tensor, spec->shape, sizes)) {
    const std::vector<std::int64_t> shape = evaluate_shape(spec->shape, sizes);
    throw InputError(concat("The memory for output ", repr(spec->name), " has shape ",
                            list_text(tensor.shape, tensor.rank), "; expected ", spec->shape_text(), " = ",
                            list_text(shape.data(), shape.size()), "."));
  }
  checked_bytes(tensor);
}

// Gives an answer of the decoder the shape that the whole model's output has. Throws ParityError where it has not as many
// elements.
void reshape(Output &answer, const TensorSpec &spec, const Sizes &sizes, const std::string &runtime) {
  if (answer.dtype != spec.dtype) throw wrong_dtype(runtime, spec, dtype_info(answer.dtype)->name);
  const std::vector<std::int64_t> shape = evaluate_shape(spec.shape, sizes);
  const auto elements = [](const std::vector<std::int64_t> &of) {  // exact for as many as there can be
    return std::accumulate(of.begin(), of.end(), 1.0, [](double all, std::int64_t size) {
      return all * static_cast<double>(size);
    });
  };
  if (elements(shape) != elements(answer.shape)) check_shape(runtime, spec, answer.shape, sizes);
  answer.shape = shape;
}

}  // namespace

Session::Session(const std::string &bundle, const Options &options)
    : bundle_(bundle),
      variant_name_(choose_variant(bundle_, options)),
      runtime_(choose_runtime(bundle_.variant(variant_name_), variant_name_, options.runtime)),
      options_(options),
      self_check_(options.allow_nonconforming) {
  const bool whole = has("full");
  for (const auto &[name, path] : bundle_.variant(variant_name_).files) {
    if (name == "full" || !whole) device_ = executor(name).device();
  }
  const char *way = whole ? "full" : "stages";
  self_check_.require(subject(way), runner(way));
}

bool Session::has(const char *stage) const {
  return find(bundle_.variant(variant_name_).files, stage) != nullptr;
}

const Stage &Session::stage(const char *name) const {
  if (name == nullptr) return *find(manifest().stages, "full");
  const auto &files = bundle_.variant(variant_name_).files;
  if (find(files, name) != nullptr) return *find(manifest().stages, name);
  throw BundleError(concat("There is no stage ", repr(name), " here; there is ", names_text(files),
                           ". Export the checkpoint again with: perceiver-deploy export CHECKPOINT -o BUNDLE --split"));
}

const Executor &Session::executor(const std::string &stage) const {
  const std::lock_guard lock(mutex_);
  auto &opened = executors_[stage];
  if (!opened) opened = open(stage);
  return *opened;
}

bool Session::runs_engines() const {
  return runtime_ == "tensorrt" || runtime_ == "tensorrt-rtx";
}

// The file of the bundle that a stage is run from.
const std::string &Session::file_of(const std::string &stage) const {
  if (!runs_engines()) return *find(bundle_.variant(variant_name_).files, stage);
  return find(manifest().engines, engine_of(bundle_, runtime_, variant_name_, stage))->file;
}

std::unique_ptr<Executor> Session::open(const std::string &stage) const {
  if (runs_engines()) {
    return open_engine(bundle_, runtime_, variant_name_, stage, options_.library);
  }
  const Library &library = Library::open(options_.library);
  const std::string file = bundle_.file(file_of(stage));
  const int threads = static_cast<int>(options_.threads.value_or(0));
  const bool weights_only = bundle_.variant(variant_name_).precision == "int8-weights";
  return std::make_unique<Graph>(library, file, GraphOptions{runtime_, threads, options_.plugin, weights_only});
}

std::vector<Output> Session::run(const char *name, const Tensors &inputs) const {
  const Stage &wanted = stage(name);
  const Sizes sizes = check_inputs(inputs, wanted.inputs, manifest().axes);
  require_stage(name);
  if (name == nullptr && !has("full")) return encode_and_decode(inputs, sizes);
  return run_stage(name == nullptr ? "full" : name, inputs, sizes);
}

std::vector<Output> Session::run_stage(const std::string &stage, const Tensors &inputs) const {
  return run_stage(stage, inputs, check_inputs(inputs, find(manifest().stages, stage)->inputs, manifest().axes));
}

// `sizes` are those of the inputs, which were checked.
std::vector<Output> Session::run_stage(const std::string &stage, const Tensors &inputs, const Sizes &sizes) const {
  const std::vector<TensorSpec> &specs = find(manifest().stages, stage)->outputs;
  std::vector<Output> outputs = executor(stage).run(inputs, specs);
  for (std::size_t index = 0; index < specs.size(); ++index)
    check_shape(runtime_, specs[index], outputs[index].shape, sizes);
  return outputs;
}

std::vector<Output> Session::encode_and_decode(const Tensors &inputs, const Sizes &sizes) const {
  const Stage &full = stage(nullptr), &encoder = stage("encoder"), &decoder = stage("decoder");
  std::vector<pd_tensor> encoded;
  for (const TensorSpec &spec : encoder.inputs) {
    if (const pd_tensor *input = inputs.find(spec.name)) encoded.push_back(*input);
  }
  const std::vector<Output> latents = run_stage("encoder", {encoded.data(), encoded.size()});
  Queries queries = all_queries(decoder, full, inputs, sizes);
  for (const Output &output : latents)
    queries.tensors.push_back(output.tensor());
  std::vector<Output> answers = run_stage("decoder", {queries.tensors.data(), queries.tensors.size()});
  std::vector<Output> outputs;
  for (const TensorSpec &spec : full.outputs) {
    const auto answer =
        std::find_if(answers.begin(), answers.end(), [&](const Output &item) { return item.name == spec.name; });
    if (answer == answers.end()) throw BundleError(concat("The stage 'decoder' has no output ", repr(spec.name), "."));
    reshape(*answer, spec, sizes, runtime_);
    outputs.push_back(std::move(*answer));
  }
  return outputs;
}

void Session::run_into(const char *name, const Tensors &inputs, const Tensors &outputs) const {
  const Stage &wanted = stage(name);
  const Sizes sizes = check_inputs(inputs, wanted.inputs, manifest().axes);
  for (const pd_tensor &output : outputs) {
    check_output(output, wanted.outputs, sizes);
    if (outputs.find(output.name) != &output) {
      throw InputError(concat("Output ", repr(output.name), " is given twice."));
    }
  }
  if (outputs.count == 0) return;
  require_stage(name);
  if (name == nullptr && !has("full")) {
    for (const Output &made : encode_and_decode(inputs, sizes)) {
      const pd_tensor *target = outputs.find(made.name);
      if (target != nullptr && made.bytes != 0) std::memcpy(target->data, made.data, made.bytes);
    }
    return;
  }
  const char *stage = name == nullptr ? "full" : name;
  try {
    executor(stage).run_into(inputs, outputs);
  } catch (const Error &) {
    run_stage(stage, inputs, sizes);  // which says so where the outputs are not such as the manifest says
    throw;
  }
}

std::vector<std::int64_t> Session::output_shape(const char *name, const Tensors &inputs,
                                                const TensorSpec &output) const {
  return evaluate_shape(output.shape, check_inputs(inputs, stage(name).inputs, manifest().axes));
}

void Session::check() const {
  if (has("full")) self_check_.repeat(subject("full"), runner("full"));
  if (has("encoder")) self_check_.repeat(subject("stages"), runner("stages"));
}

// Encoder and decoder beside `full` are checked when one of them is first run.
void Session::require_stage(const char *stage) const {
  const bool beside = stage != nullptr && std::string_view(stage) != "full" && has("full");
  if (!beside || stages_required_) return;
  self_check_.require(subject("stages"), runner("stages"));
  stages_required_ = true;
}

Subject Session::subject(const std::string &way) const {
  std::vector<std::string> files;
  if (way == "full") {
    files = {file_of("full")};
  } else {
    files = {file_of("encoder"), file_of("decoder")};
  }
  const Executor &first = executor(way == "full" ? "full" : "encoder");
  return {bundle_, variant_name_, way, files, runtime_, first.version(), first.device()};
}

RunWhole Session::runner(const std::string &way) const {
  return [this, way](const Tensors &inputs) {
    const Sizes sizes = check_inputs(inputs, stage(nullptr).inputs, manifest().axes);
    return way == "full" ? run_stage("full", inputs, sizes) : encode_and_decode(inputs, sizes);
  };
}

}  // namespace pd
