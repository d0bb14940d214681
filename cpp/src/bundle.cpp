#include "bundle.hpp"

#include <algorithm>
#include <cerrno>
#include <filesystem>

#include "error.hpp"
#include "files.hpp"
#include "onnx_header.hpp"
#include "text.hpp"

namespace pd {
namespace {

namespace fs = std::filesystem;

// A folder's path without what Python's pathlib would leave out: slashes at the end.
std::string trimmed(std::string path) {
  while (path.size() > 1 && path.back() == '/')
    path.pop_back();
  return path.empty() ? "." : path;
}

Manifest read_manifest_of(const std::string &bundle) {
  const std::string path = (fs::path(bundle) / "bundle.json").string();
  try {
    return parse_manifest(read_file(path), bundle, path);
  } catch (const FileError &error) {
    if (error.number == ENOENT || error.number == ENOTDIR) {
      throw BundleError(bundle + " is not a bundle: it has no bundle.json. Make one with: perceiver-deploy export " +
                        "CHECKPOINT -o BUNDLE");
    }
    throw BundleError(concat(path, " cannot be read: ", error.reason(), "."));
  }
}

// Whether a path, its links followed, lies in a folder.
bool lies_in(const fs::path &path, const fs::path &folder) {
  std::error_code error;
  const fs::path real = fs::weakly_canonical(path, error), root = fs::weakly_canonical(folder, error);
  const fs::path relative = real.lexically_relative(root);
  return !error && !relative.empty() && *relative.begin() != "..";
}

}  // namespace

Bundle::Bundle(const std::string &path) : path_(trimmed(path)), manifest_(read_manifest_of(path_)) {}

std::string Bundle::checked(const std::string &relative) const {
  const FileEntry *entry = find(manifest_.files, relative);
  if (entry == nullptr) {
    throw BundleError(concat(path_, " does not list ", repr(relative), "; it has ", names_text(manifest_.files), "."));
  }
  const std::string path = (fs::path(path_) / relative).string();
  if (!lies_in(path, path_)) {
    throw BundleError(
        concat(repr(relative), " in ", path_, " is a link that leaves the bundle. Replace it by the file."));
  }
  Digest digest;
  try {
    digest = digest_file(path);
  } catch (const FileError &error) {
    throw BundleError(concat(path, " cannot be read: ", error.reason(), ". Export the checkpoint again."));
  }
  if (digest.sha256 != entry->sha256) {
    throw BundleError(concat(path, " was changed after the bundle was written: sha256 is ", digest.sha256.substr(0, 12),
                             "..., the manifest says ", entry->sha256.substr(0, 12),
                             ".... Restore the file or export the checkpoint again."));
  }
  if (digest.bytes != entry->bytes) {
    throw BundleError(concat(path, " has ", digest.bytes, " bytes, the manifest says ", entry->bytes,
                             ". Export the checkpoint again."));
  }
  return path;
}

std::string Bundle::file(const std::string &relative) const {
  const std::string path = checked(relative);
  if (fs::path(path).extension() == ".onnx") {
    for (const std::string &data : external_files(path)) {
      checked(fs::path(data).lexically_relative(path_).generic_string());
    }
  }
  return path;
}

std::string Bundle::graph_digest(const std::string &relative) const {
  const std::string path = (fs::path(path_) / relative).string();
  std::vector<std::string> names;
  if (fs::path(path).extension() == ".onnx") {
    for (const std::string &data : external_files(path))
      names.push_back(fs::path(data).lexically_relative(path_).generic_string());
  }
  std::sort(names.begin(), names.end());
  names.insert(names.begin(), relative);
  return joined(names, [&](const std::string &name) {
    const FileEntry *entry = find(manifest_.files, name);
    return entry == nullptr ? "" : entry->sha256;
  });
}

const Variant &Bundle::variant(const std::string &name) const {
  if (const Variant *found = find(manifest_.variants, name)) return *found;
  throw BundleError(concat(path_, " has no variant ", repr(name), "; it has ", names_text(manifest_.variants),
                           ". Add one with: perceiver-deploy convert BUNDLE --precision PRECISION"));
}

const std::string &Bundle::variant_of(const std::string &precision) const {
  for (const auto &[name, variant] : manifest_.variants) {
    if (variant.precision == precision) return name;
  }
  throw BundleError(concat(path_, " has no variant of precision ", repr(precision), "; it has ",
                           names_text(manifest_.variants), ". Add one with: perceiver-deploy convert ", path_,
                           " --precision ", precision));
}

}  // namespace pd
