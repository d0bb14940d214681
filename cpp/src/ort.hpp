// onnxruntime, loaded at run time: whichever library the user names, of any version that has the API we ask for.
#pragma once

#include <onnxruntime_c_api.h>

#include <memory>
#include <string>
#include <vector>

#include "executor.hpp"

namespace pd {

// An object of onnxruntime's with the function that frees it.
template <class T>
using Owned = std::unique_ptr<T, void (*)(T *)>;

// What onnxruntime says went wrong.
struct OrtFailure {
  std::string message;
};

class Library {
 public:
  // Loads a library once a process; it stays loaded, since onnxruntime's threads and environment do not end with a
  // session. An empty path is what PERCEIVER_DEPLOY_ONNXRUNTIME names, else the system's. Throws MissingError.
  static const Library &open(const std::string &path);

  const OrtApi &api() const { return *api_; }
  // The API of a later version of onnxruntime; NULL where the library is older.
  const OrtApi *api(std::uint32_t version) const { return base_->GetApi(version); }
  OrtEnv *environment() const { return environment_; }
  const std::string &version() const { return version_; }
  // Throws OrtFailure.
  void check(OrtStatus *status) const;

 private:
  explicit Library(const std::string &path);

  const OrtApiBase *base_ = nullptr;
  const OrtApi *api_ = nullptr;
  OrtEnv *environment_ = nullptr;
  std::string version_;
};

// How a graph is run. `threads` 0 leaves their number to onnxruntime; `plugin` is the file of a provider's plugin;
// `weights_only`: the graph has INT8 weights alone.
struct GraphOptions {
  std::string runtime;
  int threads = 0;
  std::string plugin;
  bool weights_only = false;
};

// Adds the provider of a runtime that is not the CPU's. Throws MissingError where it or its hardware is not here.
void use_provider(const Library &library, OrtSessionOptions *session, const GraphOptions &options);

// One graph in onnxruntime.
class Graph : public Executor {
 public:
  // Throws MissingError where the runtime's provider or hardware is not here, BundleError where the file is refused.
  Graph(const Library &library, const std::string &file, const GraphOptions &options);

  const std::string &device() const override { return device_; }
  const std::string &version() const override { return library_.version(); }
  std::vector<Output> run(const Tensors &inputs, const std::vector<TensorSpec> &specs) const override;
  void run_into(const Tensors &inputs, const Tensors &outputs) const override;

 private:
  void run(const Tensors &inputs, const std::vector<const char *> &names, std::vector<OrtValue *> &values) const;
  Output output_of(const TensorSpec &spec, std::shared_ptr<OrtValue> value) const;

  // What the graph says of an output before it runs; rank 0 where it says none.
  struct Declared {
    ONNXTensorElementDataType type;
    std::size_t rank;
  };
  Named<Declared> declared_outputs() const;

  const Library &library_;
  std::string runtime_;
  std::string device_;
  Owned<OrtMemoryInfo> memory_;
  Owned<OrtSession> session_;
  Named<Declared> declared_;
};

}  // namespace pd
