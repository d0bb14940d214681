// A bundle that runs: its stages in a runtime, opened as they are needed. As StagedSession in
// perceiver_deploy/runtimes/stages/staged.py.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "bundle.hpp"
#include "executor.hpp"
#include "self_check.hpp"

namespace pd {

struct Options {
  std::string runtime = "auto";
  std::optional<std::string> variant;
  std::optional<std::string> precision;
  std::optional<std::int64_t> threads;
  std::string library;
  std::string plugin;
  bool allow_nonconforming = false;
};

class Session {
 public:
  // Opens what `run` without a stage needs: `full`, or without it `encoder` and `decoder`. Throws ParityError where that
  // does not give its own numbers here, unless the options allow it.
  Session(const std::string &bundle, const Options &options);

  const Manifest &manifest() const { return bundle_.manifest(); }
  const std::string &variant() const { return variant_name_; }
  const std::string &runtime() const { return runtime_; }
  const std::string &device() const { return device_; }

  // What is known of the graphs that were opened so far, as Conformance::text. Lives as long as the session.
  const std::string &conformance() const { return self_check_.text(); }

  // Runs the golden sample in all graphs of the variant, whatever is known. Throws ParityError where they do not conform.
  void check() const;

  // Inputs and outputs of a stage that the variant has, or with NULL those of the whole model. Throws BundleError.
  const Stage &stage(const char *name) const;

  // Throws InputError for inputs that the stage does not take; nothing was run. Throws ParityError for outputs that are
  // not such as the manifest says.
  std::vector<Output> run(const char *stage, const Tensors &inputs) const;

  // The same into memory of the caller, which has some of the outputs. Throws InputError where it does not fit.
  void run_into(const char *stage, const Tensors &inputs, const Tensors &outputs) const;

  // Sizes of an output for these inputs, which are checked.
  std::vector<std::int64_t> output_shape(const char *stage, const Tensors &inputs, const TensorSpec &output) const;

 private:
  const Executor &executor(const std::string &stage) const;
  std::unique_ptr<Executor> open(const std::string &stage) const;
  std::vector<Output> run_stage(const std::string &stage, const Tensors &inputs) const;
  std::vector<Output> run_stage(const std::string &stage, const Tensors &inputs, const Sizes &sizes) const;
  std::vector<Output> encode_and_decode(const Tensors &inputs, const Sizes &sizes) const;
  bool has(const char *stage) const;
  bool runs_engines() const;
  const std::string &file_of(const std::string &stage) const;
  Subject subject(const std::string &way) const;
  RunWhole runner(const std::string &way) const;
  void require_stage(const char *stage) const;

  Bundle bundle_;
  std::string variant_name_;
  std::string runtime_;
  Options options_;
  std::string device_;
  mutable std::mutex mutex_;
  mutable std::map<std::string, std::unique_ptr<Executor>> executors_;
  mutable SelfCheck self_check_;
  mutable std::atomic<bool> stages_required_ = false;
};

}  // namespace pd
