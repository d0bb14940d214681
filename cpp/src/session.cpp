#include "session.hpp"

#include <algorithm>
#include <cstring>
#include <limits>

#include "dtypes.hpp"
#include "error.hpp"
#include "queries.hpp"
#include "text.hpp"

namespace pd {
namespace {

const char *const kRuntimes[] = {"onnxruntime", "onnxruntime-cuda", "onnxruntime-tensorrt"};

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
  const auto suits = [&](const std::string &runtime) {
    return std::find(variant.runtimes.begin(), variant.runtimes.end(), runtime) != variant.runtimes.end();
  };
  const std::string suited = joined(variant.runtimes, [](const std::string &runtime) { return runtime; });
  if (wanted == "auto") {
    if (suits("onnxruntime")) return "onnxruntime";
    throw MissingError(concat("Variant ", repr(name), " is for ", suited,
                              ", and this library runs onnxruntime. Convert or export it with: --for onnxruntime"));
  }
  if (std::find(std::begin(kRuntimes), std::end(kRuntimes), wanted) == std::end(kRuntimes)) {
    throw UsageError(concat("There is no runtime ", repr(wanted), "; expected auto, ",
                            joined(kRuntimes, [](const char *runtime) { return runtime; }), "."));
  }
  if (!suits(wanted)) {
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
  const std::vector<std::int64_t> shape = evaluate_shape(spec->shape, sizes);
  if (!std::equal(shape.begin(), shape.end(), tensor.shape, tensor.shape + tensor.rank)) {
    throw InputError(concat("The memory for output ", repr(spec->name), " has shape ",
                            list_text(tensor.shape, tensor.rank), "; expected ", spec->shape_text(), " = ",
                            list_text(shape.data(), shape.size()), "."));
  }
  checked_bytes(tensor);
}

std::vector<const char *> names_of(const std::vector<TensorSpec> &specs) {
  std::vector<const char *> names;
  for (const TensorSpec &spec : specs)
    names.push_back(spec.name.c_str());
  return names;
}

}  // namespace

Session::Session(const std::string &bundle, const Options &options)
    : bundle_(bundle),
      variant_name_(choose_variant(bundle_, options)),
      runtime_(choose_runtime(bundle_.variant(variant_name_), variant_name_, options.runtime)),
      library_(Library::open(options.library)),
      threads_(static_cast<int>(options.threads.value_or(0))) {
  const auto &files = bundle_.variant(variant_name_).files;
  const bool whole = find(files, "full") != nullptr;
  for (const auto &[name, path] : files) {
    if (name == "full" || !whole) graph(name);
  }
}

const Stage &Session::stage(const char *name) const {
  if (name == nullptr) return *find(manifest().stages, "full");
  const auto &files = bundle_.variant(variant_name_).files;
  if (find(files, name) != nullptr) return *find(manifest().stages, name);
  throw BundleError(concat("There is no stage ", repr(name), " here; there is ", names_text(files),
                           ". Export the checkpoint again with: perceiver-deploy export CHECKPOINT -o BUNDLE --split"));
}

const Graph &Session::graph(const std::string &stage) const {
  const std::lock_guard lock(mutex_);
  auto &opened = graphs_[stage];
  if (!opened) {
    const std::string file = bundle_.file(*find(bundle_.variant(variant_name_).files, stage));
    opened = std::make_unique<Graph>(library_, file, runtime_, threads_);
  }
  return *opened;
}

std::vector<Output> Session::run(const char *name, const Tensors &inputs) const {
  const Stage &wanted = stage(name);
  const Sizes sizes = check_inputs(inputs, wanted.inputs, manifest().axes);
  if (name != nullptr) return run_graph(name, inputs);
  const bool whole = find(bundle_.variant(variant_name_).files, "full") != nullptr;
  return whole ? run_graph("full", inputs) : encode_and_decode(inputs, sizes);
}

std::vector<Output> Session::run_graph(const std::string &stage, const Tensors &inputs) const {
  const std::vector<TensorSpec> &specs = find(manifest().stages, stage)->outputs;
  const std::vector<const pd_tensor *> allocated(specs.size(), nullptr);
  std::vector<Owned<OrtValue>> values = graph(stage).run(inputs, names_of(specs), allocated);
  std::vector<Output> outputs;
  for (std::size_t index = 0; index < specs.size(); ++index) {
    outputs.push_back(output_of(specs[index], std::move(values[index])));
  }
  return outputs;
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

Output Session::output_of(const TensorSpec &spec, Owned<OrtValue> value) const {
  const OrtApi &api = library_.api();
  Output output{spec.name, spec.dtype, {}, nullptr, 0, std::move(value)};
  try {
    OrtTensorTypeAndShapeInfo *made = nullptr;
    library_.check(api.GetTensorTypeAndShape(output.value.get(), &made));
    const Owned<OrtTensorTypeAndShapeInfo> info(made, api.ReleaseTensorTypeAndShapeInfo);
    ONNXTensorElementDataType type{};
    std::size_t rank = 0, count = 0;
    library_.check(api.GetTensorElementType(made, &type));
    library_.check(api.GetDimensionsCount(made, &rank));
    library_.check(api.GetTensorShapeElementCount(made, &count));
    output.shape.resize(rank);
    library_.check(api.GetDimensions(made, output.shape.data(), rank));
    library_.check(api.GetTensorMutableData(output.value.get(), &output.data));
    if (type != dtype_info(spec.dtype)->onnx) {
      throw BundleError(concat("The graph gives ", repr(spec.name), " in another dtype than the manifest says, ",
                               dtype_info(spec.dtype)->name, ". Export the checkpoint again."));
    }
    output.bytes = count * dtype_info(spec.dtype)->bytes;
  } catch (const OrtFailure &failure) {
    throw Error("onnxruntime failed while running: " + failure.message);
  }
  return output;
}

void Session::run_into(const char *name, const Tensors &inputs, const Tensors &outputs) const {
  const Stage &wanted = stage(name);
  const Sizes sizes = check_inputs(inputs, wanted.inputs, manifest().axes);
  std::vector<const char *> names;
  std::vector<const pd_tensor *> given;
  for (const pd_tensor &output : outputs) {
    check_output(output, wanted.outputs, sizes);
    if (outputs.find(output.name) != &output) {
      throw InputError(concat("Output ", repr(output.name), " is given twice."));
    }
    names.push_back(output.name);
    given.push_back(&output);
  }
  if (given.empty()) return;
  if (name == nullptr && find(bundle_.variant(variant_name_).files, "full") == nullptr) {
    for (const Output &made : encode_and_decode(inputs, sizes)) {
      const pd_tensor *target = outputs.find(made.name);
      if (target != nullptr && made.bytes != 0) std::memcpy(target->data, made.data, made.bytes);
    }
    return;
  }
  graph(name == nullptr ? "full" : name).run(inputs, names, given);
}

std::vector<std::int64_t> Session::output_shape(const char *name, const Tensors &inputs,
                                                const TensorSpec &output) const {
  return evaluate_shape(output.shape, check_inputs(inputs, stage(name).inputs, manifest().axes));
}

}  // namespace pd
