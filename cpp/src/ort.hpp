// onnxruntime, loaded at run time: whichever library the user names, of any version that has the API of our headers.
#pragma once

#include <onnxruntime_c_api.h>

#include <memory>
#include <string>
#include <vector>

#include "inputs.hpp"
#include "manifest.hpp"

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
  OrtEnv *environment() const { return environment_; }
  const std::string &version() const { return version_; }
  // Throws OrtFailure.
  void check(OrtStatus *status) const;

 private:
  explicit Library(const std::string &path);

  const OrtApi *api_ = nullptr;
  OrtEnv *environment_ = nullptr;
  std::string version_;
};

// One graph in onnxruntime. Any number of threads may run it at once.
class Graph {
 public:
  // `runtime` is "onnxruntime", "onnxruntime-cuda" or "onnxruntime-tensorrt"; `threads` 0 leaves their number to it.
  // Throws MissingError where the runtime's provider or hardware is not here, BundleError where the file is refused.
  Graph(const Library &library, const std::string &file, const std::string &runtime, int threads);

  // Runs checked inputs for the outputs of those names. Where `given` has a tensor for an output, it is written there;
  // the others are allocated. Throws Error.
  std::vector<Owned<OrtValue>> run(const Tensors &inputs, const std::vector<const char *> &names,
                                   const std::vector<const pd_tensor *> &given) const;

 private:
  void use_provider(OrtSessionOptions *options, const std::string &runtime) const;
  Owned<OrtValue> wrap(const pd_tensor &tensor) const;

  const Library &library_;
  Owned<OrtMemoryInfo> memory_;
  Owned<OrtSession> session_;
};

}  // namespace pd
