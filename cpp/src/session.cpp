#include "session.hpp"

#include <algorithm>
#include <cstring>
#include <limits>

#include "dtypes.hpp"
#include "engine.hpp"
#include "error.hpp"
#include "ort.hpp"
#include "queries.hpp"
#include "text.hpp"

namespace pd {
namespace {

// Each runtime, and those whose variants it reads: TensorRT and TensorRT-RTX take the same graphs, CUDA those of
// onnxruntime. As runtimes/gpu_runtimes.py.
struct Runtime {
  std::string_view name;
  std::vector<std::string_view> reads;
};
const std::vector<Runtime> &runtimes() {
  static const std::vector<Runtime> all = {{"onnxruntime", {"onnxruntime"}},
                                           {"onnxruntime-cuda", {"onnxruntime-cuda", "onnxruntime"}},
                                           {"onnxruntime-tensorrt", {"onnxruntime-tensorrt", "tensorrt", "tensorrt-rtx"}},
                                           {"onnxruntime-tensorrt-rtx", {"tensorrt-rtx", "tensorrt"}},
                                           {"tensorrt", {"tensorrt", "tensorrt-rtx"}},
                                           {"tensorrt-rtx", {"tensorrt-rtx", "tensorrt"}}};
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

}  // namespace

Session::Session(const std::string &bundle, const Options &options)
    : bundle_(bundle),
      variant_name_(choose_variant(bundle_, options)),
      runtime_(choose_runtime(bundle_.variant(variant_name_), variant_name_, options.runtime)),
      options_(options) {
  const auto &files = bundle_.variant(variant_name_).files;
  const bool whole = find(files, "full") != nullptr;
  for (const auto &[name, path] : files) {
    if (name == "full" || !whole) device_ = executor(name).device();
  }
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

std::unique_ptr<Executor> Session::open(const std::string &stage) const {
  if (runtime_ == "tensorrt" || runtime_ == "tensorrt-rtx") {
    return open_engine(bundle_, runtime_, variant_name_, stage, options_.library);
  }
  const Library &library = Library::open(options_.library);
  const std::string file = bundle_.file(*find(bundle_.variant(variant_name_).files, stage));
  const int threads = static_cast<int>(options_.threads.value_or(0));
  return std::make_unique<Graph>(library, file, GraphOptions{runtime_, threads, options_.plugin});
}

std::vector<Output> Session::run(const char *name, const Tensors &inputs) const {
  const Stage &wanted = stage(name);
  const Sizes sizes = check_inputs(inputs, wanted.inputs, manifest().axes);
  if (name != nullptr) return run_stage(name, inputs);
  const bool whole = find(bundle_.variant(variant_name_).files, "full") != nullptr;
  return whole ? run_stage("full", inputs) : encode_and_decode(inputs, sizes);
}

std::vector<Output> Session::run_stage(const std::string &stage, const Tensors &inputs) const {
  return executor(stage).run(inputs, find(manifest().stages, stage)->outputs);
}

std::vector<Output> Session::encode_and_decode(const Tensors &inputs, const Sizes &sizes) const {
  const Stage &full = stage(nullptr), &encoder = stage("encoder"), &decoder = stage("decoder");
  std::vector<pd_tensor> encoded;
  for (const TensorSpec &spec : encoder.inputs) {
    if (const pd_tensor *input = inputs.find(spec.name)) encoded.push_back(*input);
  }
  const std::vector<Output> latents = run("encoder", {encoded.data(), encoded.size()});
  Queries queries = all_queries(decoder, full, inputs, sizes);
  for (const Output &output : latents)
    queries.tensors.push_back(output.tensor());
  std::vector<Output> answers = run("decoder", {queries.tensors.data(), queries.tensors.size()});
  std::vector<Output> outputs;
  for (const TensorSpec &spec : full.outputs) {
    const auto answer =
        std::find_if(answers.begin(), answers.end(), [&](const Output &item) { return item.name == spec.name; });
    if (answer == answers.end()) throw BundleError(concat("The stage 'decoder' has no output ", repr(spec.name), "."));
    answer->shape = evaluate_shape(spec.shape, sizes);
    checked_bytes(answer->tensor());
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
  if (name == nullptr && find(bundle_.variant(variant_name_).files, "full") == nullptr) {
    for (const Output &made : encode_and_decode(inputs, sizes)) {
      const pd_tensor *target = outputs.find(made.name);
      if (target != nullptr && made.bytes != 0) std::memcpy(target->data, made.data, made.bytes);
    }
    return;
  }
  executor(name == nullptr ? "full" : name).run_into(inputs, outputs);
}

std::vector<std::int64_t> Session::output_shape(const char *name, const Tensors &inputs,
                                                const TensorSpec &output) const {
  return evaluate_shape(output.shape, check_inputs(inputs, stage(name).inputs, manifest().axes));
}

}  // namespace pd
