#include <string_view>

#include "dtypes.hpp"
#include "error.hpp"
#include "onnx_header.hpp"
#include "ort.hpp"
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

// The error of a runtime that cannot load a file: too new an opset, or its own words. As in runtimes/refusal.py.
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

MissingError no_provider(const std::string &runtime, const OrtFailure &failure) {
  return MissingError(concat("The runtime ", runtime, " cannot run here: ", failure.message,
                             ". It needs an NVIDIA GPU and an onnxruntime that was built with it; or use the runtime "
                             "onnxruntime, which runs on the CPU."));
}

}  // namespace

Graph::Graph(const Library &library, const std::string &file, const std::string &runtime, int threads)
    : library_(library),
      memory_(nullptr, library.api().ReleaseMemoryInfo),
      session_(nullptr, library.api().ReleaseSession) {
  const OrtApi &api = library.api();
  const bool on_gpu = runtime != "onnxruntime";
  OrtSessionOptions *made = nullptr;
  try {
    OrtMemoryInfo *memory = nullptr;
    library.check(api.CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory));
    memory_.reset(memory);
    library.check(api.CreateSessionOptions(&made));
    const Owned<OrtSessionOptions> options(made, api.ReleaseSessionOptions);
    library.check(api.SetSessionLogSeverityLevel(made, kErrorsOnly));
    if (threads > 0) library.check(api.SetIntraOpNumThreads(made, threads));
    if (on_gpu) use_provider(made, runtime);
    OrtSession *session = nullptr;
    library.check(api.CreateSession(library.environment(), file.c_str(), made, &session));
    session_.reset(session);
  } catch (const OrtFailure &failure) {
    if (on_gpu && failure.message.find("CUDA") != std::string::npos) throw no_provider(runtime, failure);
    throw refusal("onnxruntime " + library.version(), file, failure.message);
  }
}

void Graph::use_provider(OrtSessionOptions *options, const std::string &runtime) const {
  const OrtApi &api = library_.api();
  try {
    if (runtime == "onnxruntime-tensorrt") {
      OrtTensorRTProviderOptionsV2 *made = nullptr;
      library_.check(api.CreateTensorRTProviderOptions(&made));
      const Owned<OrtTensorRTProviderOptionsV2> provider(made, api.ReleaseTensorRTProviderOptions);
      library_.check(api.SessionOptionsAppendExecutionProvider_TensorRT_V2(options, made));
    }
    OrtCUDAProviderOptionsV2 *made = nullptr;
    library_.check(api.CreateCUDAProviderOptions(&made));
    const Owned<OrtCUDAProviderOptionsV2> provider(made, api.ReleaseCUDAProviderOptions);
    library_.check(api.SessionOptionsAppendExecutionProvider_CUDA_V2(options, made));
  } catch (const OrtFailure &failure) {
    throw no_provider(runtime, failure);
  }
}

Owned<OrtValue> Graph::wrap(const pd_tensor &tensor) const {
  OrtValue *value = nullptr;
  library_.check(library_.api().CreateTensorWithDataAsOrtValue(memory_.get(), tensor.data, checked_bytes(tensor),
                                                               tensor.shape, tensor.rank,
                                                               dtype_info(tensor.dtype)->onnx, &value));
  return {value, library_.api().ReleaseValue};
}

std::vector<Owned<OrtValue>> Graph::run(const Tensors &inputs, const std::vector<const char *> &names,
                                        const std::vector<const pd_tensor *> &given) const {
  std::vector<const char *> input_names;
  std::vector<const OrtValue *> input_values;
  std::vector<OrtValue *> output_values(names.size(), nullptr);
  std::vector<Owned<OrtValue>> wrapped, outputs;
  try {
    for (const pd_tensor &input : inputs) {
      wrapped.push_back(wrap(input));
      input_names.push_back(input.name);
      input_values.push_back(wrapped.back().get());
    }
    for (std::size_t index = 0; index < names.size(); ++index) {
      outputs.push_back(given[index] ? wrap(*given[index]) : Owned<OrtValue>(nullptr, library_.api().ReleaseValue));
      output_values[index] = outputs.back().get();
    }
    library_.check(library_.api().Run(session_.get(), nullptr, input_names.data(), input_values.data(),
                                      input_values.size(), names.data(), names.size(), output_values.data()));
  } catch (const OrtFailure &failure) {
    throw Error("onnxruntime failed while running: " + failure.message);
  }
  for (std::size_t index = 0; index < names.size(); ++index) {
    if (!given[index]) outputs[index].reset(output_values[index]);
  }
  return outputs;
}

}  // namespace pd
