#include <dlfcn.h>

#include <cstdlib>
#include <map>
#include <mutex>

#include "error.hpp"
#include "ort.hpp"
#include "text.hpp"

namespace pd {
namespace {

constexpr std::uint32_t kLeastApi = 21;  // whatever the headers, libraries of 1.21 will do; see providers.cpp

constexpr const char *kVariable = "PERCEIVER_DEPLOY_ONNXRUNTIME";
constexpr const char *kRemedy =
    "Give the path of libonnxruntime.so as the option 'library' or in the environment variable "
    "PERCEIVER_DEPLOY_ONNXRUNTIME; pip install onnxruntime brings one, and so does onnxruntime's official release.";

}  // namespace

const Library &Library::open(const std::string &path) {
  // Never freed: other static objects, and threads of onnxruntime, may outlive anything freed at exit.
  static std::mutex &mutex = *new std::mutex;
  static auto &libraries = *new std::map<std::string, std::unique_ptr<Library>>;
  const char *named = std::getenv(kVariable);
  const std::string file = !path.empty() ? path : named != nullptr && *named != 0 ? named : "libonnxruntime.so.1";
  const std::lock_guard lock(mutex);
  auto &library = libraries[file];
  if (!library) library.reset(new Library(file));
  return *library;
}

Library::Library(const std::string &path) {
  ::setenv("ORT_DISABLE_TELEMETRY", "1", 0);  // before its first environment; the user's own value wins
  void *handle = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) throw MissingError(concat("onnxruntime cannot be loaded: ", ::dlerror(), ". ", kRemedy));
  using GetApiBase = const OrtApiBase *(*)();
  const auto get_base = reinterpret_cast<GetApiBase>(::dlsym(handle, "OrtGetApiBase"));
  if (get_base == nullptr) throw MissingError(concat(path, " is not onnxruntime: it has no OrtGetApiBase. ", kRemedy));
  base_ = get_base();
  version_ = base_->GetVersionString();
  api_ = base_->GetApi(kLeastApi);
  if (api_ == nullptr) {
    throw MissingError(concat(path, " is onnxruntime ", version_, "; expected 1.", kLeastApi,
                              " or later. Upgrade onnxruntime."));
  }
  try {
    check(api_->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "perceiver-deploy", &environment_));
  } catch (const OrtFailure &failure) {
    throw MissingError(concat("onnxruntime ", version_, " cannot start: ", failure.message, ". ", kRemedy));
  }
}

void Library::check(OrtStatus *status) const {
  if (status == nullptr) return;
  OrtFailure failure{api_->GetErrorMessage(status)};
  api_->ReleaseStatus(status);
  throw failure;
}

}  // namespace pd
