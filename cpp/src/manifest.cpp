#include "manifest.hpp"

#include <algorithm>

#include "dtypes.hpp"
#include "error.hpp"
#include "schema.hpp"

namespace pd {
namespace {

// What a valid document means that its schema cannot say is wrong: place and message, as in Python.
struct Invalid {
  std::string text;
};

// An object that may be left out.
const Json &member(const Json &json, const char *name) {
  static const Json empty = Json::object();
  const auto found = json.find(name);
  return found == json.end() ? empty : *found;
}

pd_dtype read_dtype(const Json &json) {
  const DtypeInfo *info = dtype_named(json.get_ref<const std::string &>());
  if (info == nullptr) throw Invalid{concat("manifest: this library does not know the dtype ", json.dump())};
  return info->dtype;
}

std::string checked_path(const Json &value, const std::string &place) {
  const auto &path = value.get_ref<const std::string &>();
  bool inside = path.find_first_of(std::string_view("\\\0", 2)) == std::string::npos && path.rfind('/', 0) != 0;
  std::size_t parts = 0;
  for (std::size_t start = 0; start <= path.size();) {
    const std::size_t end = std::min(path.find('/', start), path.size());
    const std::string part = path.substr(start, end - start);
    inside = inside && part != "..";
    parts += !part.empty() && part != ".";
    start = end + 1;
  }
  if (!inside || parts == 0) {
    throw Invalid{concat(place, ": path ", repr(path), " leaves the bundle; expected a relative path without '..'")};
  }
  return path;
}

std::optional<std::int64_t> optional_number(const Json &object, const char *name) {
  const auto found = object.find(name);
  return found == object.end() || found->is_null() ? std::nullopt : std::optional(found->get<std::int64_t>());
}

Axis read_axis(const Json &json, const std::string &place) {
  Axis axis;
  axis.min = json.value("min", std::int64_t{1});
  axis.opt = json.at("opt").get<std::int64_t>();
  axis.max = optional_number(json, "max");
  axis.multiple_of = json.value("multiple_of", std::int64_t{1});
  if (axis.min > axis.opt || (axis.max && axis.opt > *axis.max)) {
    throw Invalid{concat(place, ": axis needs min <= opt <= max, got ", axis.min, ", ", axis.opt, ", ",
                         axis.max ? std::to_string(*axis.max) : "None")};
  }
  if (axis.opt % axis.multiple_of != 0) {
    throw Invalid{concat(place, ": opt must be a multiple of ", axis.multiple_of, ", got ", axis.opt)};
  }
  return axis;
}

Size read_size(const Json &json) {
  return json.is_string() ? Size(json.get_ref<const std::string &>()) : Size(json.get<std::int64_t>());
}

std::vector<TensorSpec> read_specs(const Json &json) {
  std::vector<TensorSpec> specs;
  for (const Json &item : json) {
    TensorSpec spec{item.at("name").get<std::string>(), read_dtype(item.at("dtype")), {}, {}, {}};
    for (const Json &size : item.at("shape"))
      spec.shape.push_back(read_size(size));
    spec.minimum = optional_number(item, "minimum");
    const auto maximum = item.find("maximum");
    if (maximum != item.end() && !maximum->is_null()) spec.maximum = read_size(*maximum);
    specs.push_back(std::move(spec));
  }
  return specs;
}

Variant read_variant(const Json &json, const std::string &place) {
  Variant variant{json.at("precision").get<std::string>(), json.at("for").get<std::vector<std::string>>(), {}};
  for (const auto &[stage, path] : json.at("files").items()) {
    variant.files.emplace_back(stage, checked_path(path, concat(place, ".files.", stage)));
  }
  const bool encoder = find(variant.files, "encoder") != nullptr, decoder = find(variant.files, "decoder") != nullptr;
  if (encoder != decoder || variant.files.empty()) {
    throw Invalid{concat(place, ": a variant has the stage full, or encoder and decoder, or all three; this has [",
                         joined(variant.files, [](const auto &file) { return repr(file.first); }), "]")};
  }
  return variant;
}

void check_digests(const Manifest &manifest) {
  if (manifest.files.empty()) return;
  std::vector<std::string> absent;
  const auto note = [&](const std::string &path) {
    if (find(manifest.files, path) == nullptr) absent.push_back(path);
  };
  for (const auto &[name, variant] : manifest.variants) {
    for (const auto &[stage, path] : variant.files)
      note(path);
  }
  for (const auto &[name, engine] : manifest.engines)
    note(engine.file);
  std::sort(absent.begin(), absent.end());
  absent.erase(std::unique(absent.begin(), absent.end()), absent.end());
  if (!absent.empty()) {
    throw Invalid{"manifest: files has no digest for " + joined(absent, [](const auto &path) { return path; })};
  }
}

void check_stages(const Manifest &manifest) {
  if (find(manifest.stages, "full") == nullptr) {
    throw Invalid{"manifest: stages has no 'full'; it has " + names_text(manifest.stages)};
  }
  for (const auto &[name, variant] : manifest.variants) {
    std::string unknown;
    for (const auto &[stage, path] : variant.files) {
      const bool described = find(manifest.stages, stage) != nullptr;
      if (!described && (unknown.empty() || stage < unknown)) unknown = stage;
    }
    if (!unknown.empty()) {
      throw Invalid{concat("manifest: variant ", repr(name), " has the stage ", repr(unknown),
                           ", which stages does not describe")};
    }
  }
  for (const auto &[name, stage] : manifest.stages) {
    for (const TensorSpec &spec : stage.inputs) {
      for (const Size &size : spec.shape) {
        for (const std::string &axis : size.axes()) {
          if (find(manifest.axes, axis) != nullptr) continue;
          throw Invalid{concat("manifest: input ", repr(spec.name), " has the axis ", repr(axis),
                               ", which axes does not describe")};
        }
      }
    }
  }
}

Manifest read_manifest(const Json &json) {
  Manifest manifest;
  for (const auto &[name, axis] : json.at("axes").items()) {
    manifest.axes.emplace_back(name, read_axis(axis, "axes." + name));
  }
  for (const auto &[name, stage] : json.at("stages").items()) {
    manifest.stages.emplace_back(name, Stage{read_specs(stage.at("inputs")), read_specs(stage.at("outputs"))});
  }
  for (const auto &[name, variant] : json.at("variants").items()) {
    manifest.variants.emplace_back(name, read_variant(variant, "variants." + name));
  }
  for (const auto &[name, engine] : member(json, "engines").items()) {
    manifest.engines.emplace_back(name, EngineEntry{engine.at("variant").get<std::string>(),
                                                    engine.at("stage").get<std::string>(),
                                                    checked_path(engine.at("file"), concat("engines.", name, ".file"))});
  }
  for (const auto &[path, entry] : member(json, "files").items()) {
    checked_path(Json(path), concat("files.", path, ".[key]"));
    manifest.files.emplace_back(
        path, FileEntry{entry.at("sha256").get<std::string>(), entry.at("bytes").get<std::int64_t>()});
  }
  check_digests(manifest);
  check_stages(manifest);
  for (const auto &[name, engine] : manifest.engines) {
    if (find(manifest.variants, engine.variant) == nullptr) {
      throw Invalid{concat("manifest: engine ", repr(name), " is of variant ", repr(engine.variant),
                           ", which the bundle does not have")};
    }
  }
  const auto labels = json.find("labels");
  if (labels != json.end() && !labels->is_null()) manifest.labels = labels->get<std::vector<std::string>>();
  return manifest;
}

}  // namespace

std::string Axis::problem(std::int64_t size) const {
  if (size < min) return concat("at least ", min);
  if (max && size > *max) return concat("at most ", *max);
  if (size % multiple_of != 0) return concat("a multiple of ", multiple_of);
  return "";
}

std::string TensorSpec::shape_text() const {
  return "[" + joined(shape, [](const Size &size) { return size.text(); }) + "]";
}

Manifest parse_manifest(const std::string &text, const std::string &bundle, const std::string &path) {
  Json json;
  try {
    json = Json::parse(text);
  } catch (const Json::exception &error) {
    throw BundleError(concat(path, " is not JSON: ", error.what(), ". Export the checkpoint again."));
  }
  if (json.is_object() && json.contains("schema_version") && json["schema_version"].is_number_integer() &&
      json["schema_version"] > kSchemaVersion) {
    throw BundleError(concat(bundle, " has schema_version ", json["schema_version"].dump(),
                             "; this perceiver-deploy reads up to ", kSchemaVersion,
                             ". Upgrade perceiver-deploy, or export the bundle again with this version."));
  }
  std::optional<std::string> problem = schema_problem(json);
  if (!problem) {
    try {
      Manifest manifest = read_manifest(json);
      manifest.text = text;
      return manifest;
    } catch (const Invalid &invalid) {
      problem = invalid.text;
    }
  }
  throw BundleError(concat(path, " is not a valid manifest: ", *problem, "."));
}

}  // namespace pd
