// A bundle that runs: its stages in onnxruntime, opened as they are needed. As StagedSession in
// perceiver_deploy/runtimes/staged.py.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "bundle.hpp"
#include "inputs.hpp"
#include "ort.hpp"

namespace pd {

struct Options {
  std::string runtime = "auto";
  std::optional<std::string> variant;
  std::optional<std::string> precision;
  std::optional<std::int64_t> threads;
  std::string library;
};

// One output. `data` is onnxruntime's memory, which `value` keeps.
struct Output {
  std::string name;
  pd_dtype dtype;
  std::vector<std::int64_t> shape;
  void *data;
  std::size_t bytes;
  Owned<OrtValue> value;

  pd_tensor tensor() const { return {name.c_str(), dtype, shape.data(), shape.size(), data, bytes}; }
};

class Session {
 public:
  // Opens what `run` without a stage needs: `full`, or without it `encoder` and `decoder`.
  Session(const std::string &bundle, const Options &options);

  const Manifest &manifest() const { return bundle_.manifest(); }
  const std::string &variant() const { return variant_name_; }
  const std::string &runtime() const { return runtime_; }
  const char *device() const { return runtime_ == "onnxruntime" ? "cpu" : "cuda"; }

  // Inputs and outputs of a stage that the variant has, or with NULL those of the whole model. Throws BundleError.
  const Stage &stage(const char *name) const;

  // Throws InputError for inputs that the stage does not take; nothing was run.
  std::vector<Output> run(const char *stage, const Tensors &inputs) const;

  // The same into memory of the caller, which has some of the outputs. Throws InputError where it does not fit.
  void run_into(const char *stage, const Tensors &inputs, const Tensors &outputs) const;

  // Sizes of an output for these inputs, which are checked.
  std::vector<std::int64_t> output_shape(const char *stage, const Tensors &inputs, const TensorSpec &output) const;

 private:
  const Graph &graph(const std::string &stage) const;
  std::vector<Output> run_graph(const std::string &stage, const Tensors &inputs) const;
  std::vector<Output> encode_and_decode(const Tensors &inputs, const Sizes &sizes) const;
  Output output_of(const TensorSpec &spec, Owned<OrtValue> value) const;

  Bundle bundle_;
  std::string variant_name_;
  std::string runtime_;
  const Library &library_;
  int threads_ = 0;
  mutable std::mutex mutex_;
  mutable std::map<std::string, std::unique_ptr<Graph>> graphs_;
};

}  // namespace pd
