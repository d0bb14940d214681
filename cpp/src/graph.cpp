#include <string_view>

#include "dtypes.hpp"
#include "error.hpp"
#include "onnx_header.hpp"
#include "ort.hpp"
#include "processor.hpp"
#include "output_check.hpp"
#include "text.hpp"

namespace pd {
namespace {

constexpr int kErrorsOnly = 3;  // onnxruntime's log level, as Python sets it

// The number after a phrase, as text; empty where the phrase is not there.
std::string number_after(const std::string &text, std::string_view phrase) {
  const std::size_t found = text.find(phrase);
  if (found == std::string::npos) return "";
  const std::size_t start = found + phrase.size();
  return text.substr(start, text.find_first_not_of("0123456789", start) - start);
}

// The error of a runtime that cannot load a file: too new an opset, or its own words. As in runtimes/load_errors.py.
BundleError refusal(const std::string &runtime, const std::string &file, const std::string &said) {
  const OnnxHeader header = read_onnx_header(file);
  const std::string versions = concat(runtime, " cannot load ", file, ", which has ONNX opset ", header.opset(),
                                      " and IR version ", header.ir_version);
  const char *remedy = "Upgrade the runtime, or export the checkpoint again with an older one: --opset.";
  constexpr std::string_view domain_phrase = "support for domain ";
  if (const std::string latest = number_after(said, " is till opset "); !latest.empty()) {
    const std::size_t start = said.find(domain_phrase) + domain_phrase.size();
    const std::string domain = said.substr(start, said.find(' ', start) - start);
    return BundleError(concat(versions, ": it reads opsets of ", domain, " up to ", latest, ". ", remedy));
  }
  if (const std::string latest = number_after(said, "max supported IR version: "); !latest.empty()) {
    return BundleError(concat(versions, ": it reads IR versions up to ", latest, ". ", remedy));
  }
  return BundleError(concat(versions, ": ", said));
}

// Names and values as onnxruntime takes them, over the memory of tensors, until the end of a run.
class Values {
 public:
  Values(const Library &library, const OrtMemoryInfo *memory, const Tensors &tensors) : api_(library.api()) {
    names.reserve(tensors.count);
    values.reserve(tensors.count);
    try {
      for (const pd_tensor &tensor : tensors) {
        names.push_back(tensor.name);
        values.push_back(nullptr);
        library.check(api_.CreateTensorWithDataAsOrtValue(memory, tensor.data, checked_bytes(tensor), tensor.shape,
                                                          tensor.rank, dtype_info(tensor.dtype)->onnx, &values.back()));
      }
    } catch (...) {
      release();
      throw;
    }
  }
  ~Values() { release(); }
  Values(const Values &) = delete;
  Values &operator=(const Values &) = delete;

  std::vector<const char *> names;
  std::vector<OrtValue *> values;

 private:
  void release() {
    for (OrtValue *value : values)
      api_.ReleaseValue(value);
  }

  const OrtApi &api_;
};

Error failed(const OrtFailure &failure) {
  return Error("onnxruntime failed while running: " + failure.message);
}

// What lets onnxruntime's CPU provider compute what a graph says, for the reasons in runtimes/cpu/onnxruntime.py.
void compute_as_stated(const Library &library, OrtSessionOptions *session, bool weights_only) {
  const OrtApi &api = library.api();
  library.check(api.AddSessionConfigEntry(session, "session.qdq_matmulnbits_accuracy_level", "1"));
  if (weights_only) library.check(api.AddSessionConfigEntry(session, "session.disable_quant_qdq", "1"));
  if (lacks_int8_products()) {
    library.check(
        api.AddSessionConfigEntry(session, "optimization.disable_specified_optimizers", "QDQPropagationTransformer"));
  }
}

}  // namespace

Graph::Graph(const Library &library, const std::string &file, const GraphOptions &options)
    : library_(library),
      runtime_(options.runtime),
      device_(options.runtime == "onnxruntime" ? "cpu" : "cuda"),
      memory_(nullptr, library.api().ReleaseMemoryInfo),
      session_(nullptr, library.api().ReleaseSession) {
  const OrtApi &api = library.api();
  try {
    OrtMemoryInfo *memory = nullptr;
    library.check(api.CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory));
    memory_.reset(memory);
    OrtSessionOptions *made = nullptr;
    library.check(api.CreateSessionOptions(&made));
    const Owned<OrtSessionOptions> owned(made, api.ReleaseSessionOptions);
    library.check(api.SetSessionLogSeverityLevel(made, kErrorsOnly));
    if (options.threads > 0) library.check(api.SetIntraOpNumThreads(made, options.threads));
    if (options.runtime == "onnxruntime") {
      compute_as_stated(library, made, options.weights_only);
    } else {
      use_provider(library, made, options);
    }
    OrtSession *session = nullptr;
    library.check(api.CreateSession(library.environment(), file.c_str(), made, &session));
    session_.reset(session);
    declared_ = declared_outputs();
  } catch (const OrtFailure &failure) {
    if (device_ != "cpu" && failure.message.find("CUDA") != std::string::npos) {
      throw MissingError(concat("The runtime ", options.runtime, " cannot run here: ", failure.message,
                                ". Use the runtime onnxruntime, which runs on the CPU."));
    }
    throw refusal("onnxruntime " + library.version(), file, failure.message);
  }
}

Named<Graph::Declared> Graph::declared_outputs() const {
  const OrtApi &api = library_.api();
  OrtAllocator *allocator = nullptr;
  std::size_t count = 0;
  library_.check(api.GetAllocatorWithDefaultOptions(&allocator));
  library_.check(api.SessionGetOutputCount(session_.get(), &count));
  Named<Declared> all;
  for (std::size_t index = 0; index < count; ++index) {
    char *name = nullptr;
    OrtTypeInfo *made = nullptr;
    const OrtTensorTypeAndShapeInfo *tensor = nullptr;
    library_.check(api.SessionGetOutputName(session_.get(), index, allocator, &name));
    const std::string kept(name);
    library_.check(api.AllocatorFree(allocator, name));
    library_.check(api.SessionGetOutputTypeInfo(session_.get(), index, &made));
    const Owned<OrtTypeInfo> info(made, api.ReleaseTypeInfo);
    library_.check(api.CastTypeInfoToTensorInfo(made, &tensor));
    if (tensor == nullptr) continue;  // no tensor, which no run takes
    Declared declared{};
    library_.check(api.GetTensorElementType(tensor, &declared.type));
    library_.check(api.GetDimensionsCount(tensor, &declared.rank));
    all.emplace_back(kept, declared);
  }
  return all;
}

void Graph::run(const Tensors &inputs, const std::vector<const char *> &names, std::vector<OrtValue *> &values) const {
  const Values given(library_, memory_.get(), inputs);
  library_.check(library_.api().Run(session_.get(), nullptr, given.names.data(), given.values.data(),
                                    given.values.size(), names.data(), names.size(), values.data()));
}

std::vector<Output> Graph::run(const Tensors &inputs, const std::vector<TensorSpec> &specs) const {
  std::vector<const char *> names;
  for (const TensorSpec &spec : specs)
    names.push_back(spec.name.c_str());
  std::vector<OrtValue *> values(names.size(), nullptr);
  try {
    run(inputs, names, values);
    std::vector<std::shared_ptr<OrtValue>> owned;
    for (OrtValue *value : values)
      owned.emplace_back(value, library_.api().ReleaseValue);
    std::vector<Output> outputs;
    for (std::size_t index = 0; index < specs.size(); ++index)
      outputs.push_back(output_of(specs[index], owned[index]));
    return outputs;
  } catch (const OrtFailure &failure) {
    throw failed(failure);
  }
}

void Graph::run_into(const Tensors &inputs, const Tensors &outputs) const {
  for (const pd_tensor &output : outputs) {
    const Declared *declared = find(declared_, output.name);
    if (declared == nullptr) continue;
    const bool same_rank = declared->rank == 0 || declared->rank == output.rank;
    if (!same_rank || declared->type != dtype_info(output.dtype)->onnx) {
      throw Error(concat("The graph gives ", repr(output.name), " in another dtype or rank than the manifest says. ",
                         "Export the checkpoint again."));
    }
  }
  try {
    Values wanted(library_, memory_.get(), outputs);
    run(inputs, wanted.names, wanted.values);
  } catch (const OrtFailure &failure) {
    throw failed(failure);
  }
}

Output Graph::output_of(const TensorSpec &spec, std::shared_ptr<OrtValue> value) const {
  const OrtApi &api = library_.api();
  OrtTensorTypeAndShapeInfo *made = nullptr;
  library_.check(api.GetTensorTypeAndShape(value.get(), &made));
  const Owned<OrtTensorTypeAndShapeInfo> info(made, api.ReleaseTensorTypeAndShapeInfo);
  ONNXTensorElementDataType type{};
  std::size_t rank = 0, count = 0;
  library_.check(api.GetTensorElementType(made, &type));
  library_.check(api.GetDimensionsCount(made, &rank));
  library_.check(api.GetTensorShapeElementCount(made, &count));
  const DtypeInfo &expected = *dtype_info(spec.dtype);
  if (type != expected.onnx) throw wrong_dtype(runtime_, spec, onnx_dtype_name(type));
  Output output{spec.name, spec.dtype, std::vector<std::int64_t>(rank), nullptr, count * expected.bytes, value};
  library_.check(api.GetDimensions(made, output.shape.data(), rank));
  library_.check(api.GetTensorMutableData(value.get(), &output.data));
  return output;
}

}  // namespace pd
