// A bundle that runs: its stages in a runtime, opened as they are needed. As StagedSession in
// perceiver_deploy/runtimes/staged.py.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "bundle.hpp"
#include "executor.hpp"

namespace pd {

struct Options {
  std::string runtime = "auto";
  std::optional<std::string> variant;
  std::optional<std::string> precision;
  std::optional<std::int64_t> threads;
  std::string library;
  std::string plugin;
};

class Session {
 public:
  // Opens what `run` without a stage needs: `full`, or without it `encoder` and `decoder`.
  Session(const std::string &bundle, const Options &options);

  const Manifest &manifest() const { return bundle_.manifest(); }
  const std::string &variant() const { return variant_name_; }
  const std::string &runtime() const { return runtime_; }
  const std::string &device() const { return device_; }

  // Inputs and outputs of a stage that the variant has, or with NULL those of the whole model. Throws BundleError.
  const Stage &stage(const char *name) const;

  // Throws InputError for inputs that the stage does not take; nothing was run.
  std::vector<Output> run(const char *stage, const Tensors &inputs) const;

  // The same into memory of the caller, which has some of the outputs. Throws InputError where it does not fit.
  void run_into(const char *stage, const Tensors &inputs, const Tensors &outputs) const;

  // Sizes of an output for these inputs, which are checked.
  std::vector<std::int64_t> output_shape(const char *stage, const Tensors &inputs, const TensorSpec &output) const;

 private:
  const Executor &executor(const std::string &stage) const;
  std::unique_ptr<Executor> open(const std::string &stage) const;
  std::vector<Output> run_stage(const std::string &stage, const Tensors &inputs) const;
  std::vector<Output> encode_and_decode(const Tensors &inputs, const Sizes &sizes) const;

  Bundle bundle_;
  std::string variant_name_;
  std::string runtime_;
  Options options_;
  std::string device_;
  mutable std::mutex mutex_;
  mutable std::map<std::string, std::unique_ptr<Executor>> executors_;
};

}  // namespace pd
