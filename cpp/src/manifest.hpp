// The manifest of a bundle, as perceiver_deploy/bundle/manifest.py has it: what running needs of it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "expression.hpp"
#include "perceiver_deploy/perceiver_deploy.h"
#include "text.hpp"

namespace pd {

// "fp32, int8".
template <class T>
std::string names_text(const Named<T> &items) {
  return joined(items, [](const auto &item) { return item.first; });
}

// Sizes that a symbolic axis may take.
struct Axis {
  std::int64_t min = 1;
  std::int64_t opt = 1;
  std::optional<std::int64_t> max;
  std::int64_t multiple_of = 1;

  // What was expected instead of `size`; empty when it fits.
  std::string problem(std::int64_t size) const;
};

// One input or output: name, dtype, shape, and the values it may take.
struct TensorSpec {
  std::string name;
  pd_dtype dtype;
  std::vector<Size> shape;
  std::optional<std::int64_t> minimum;
  std::optional<Size> maximum;

  std::string shape_text() const;  // "[batch, 3, height]"
};

struct Stage {
  std::vector<TensorSpec> inputs;
  std::vector<TensorSpec> outputs;
};

struct Variant {
  std::string precision;
  std::vector<std::string> runtimes;
  Named<std::string> files;  // by stage
};

// A compiled engine of TensorRT's, of one stage of a variant.
struct EngineEntry {
  std::string variant, stage;
  std::string file;
};

struct FileEntry {
  std::string sha256;
  std::int64_t bytes;
};

struct Manifest {
  Named<Axis> axes;
  Named<Stage> stages;
  Named<Variant> variants;
  Named<EngineEntry> engines;
  Named<FileEntry> files;
  std::vector<std::string> labels;
  std::string text;  // of bundle.json
};

constexpr std::int64_t kSchemaVersion = 1;

// Reads the text of bundle.json, which lies at `path` in the bundle `bundle`: they are for messages. Throws BundleError
// where it is not JSON, has a newer schema, or breaks the schema. What is under `preprocessing` is checked by the schema
// alone: this library does none.
Manifest parse_manifest(const std::string &text, const std::string &bundle, const std::string &path);

}  // namespace pd
