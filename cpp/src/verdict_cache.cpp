#include "verdict_cache.hpp"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <limits>

#include "files.hpp"
#include "schema.hpp"

namespace pd {
namespace {

namespace fs = std::filesystem;

constexpr double kNotFinite = std::numeric_limits<double>::infinity();  // JSON has null for it

const char *variable(const char *name) {
  const char *value = std::getenv(name);
  return value == nullptr || *value == 0 ? nullptr : value;
}

// As `cache_directory` in perceiver_deploy/cache.py. Empty where nothing says where it is.
fs::path cache_directory() {
  if (const char *own = variable("PERCEIVER_DEPLOY_CACHE")) return own;
  if (const char *cache = variable("XDG_CACHE_HOME")) return fs::path(cache) / "perceiver-deploy";
  const char *home = variable("HOME");
  return home == nullptr ? fs::path() : fs::path(home) / ".cache" / "perceiver-deploy";
}

fs::path file_of(const std::string &key) {
  const fs::path folder = cache_directory();
  return folder.empty() ? folder : folder / "conformance" / ("cpp-" + key + ".json");
}

bool write_all(int descriptor, const std::string &content) {
  for (std::size_t done = 0; done < content.size();) {
    const ssize_t count = ::write(descriptor, content.data() + done, content.size() - done);
    if (count <= 0) return false;
    done += static_cast<std::size_t>(count);
  }
  return true;
}

}  // namespace

std::optional<Verdict> kept_verdict(const std::string &key) {
  const fs::path path = file_of(key);
  if (path.empty()) return std::nullopt;
  try {
    const Json json = Json::parse(read_file(path.string()));
    const Json &distance = json.at("distance");
    const Verdict verdict{json.at("conforms").get<bool>(), json.at("sample").get<std::string>(),
                          json.at("output").get<std::string>(), distance.is_null() ? kNotFinite : distance.get<double>(),
                          json.at("bound").get<double>(), json.value("problem", "")};
    if (verdict.conforms == (verdict.distance <= verdict.bound)) return verdict;
  } catch (const FileError &) {
  } catch (const Json::exception &) {
  }
  return std::nullopt;
}

void keep_verdict(const std::string &key, const Verdict &verdict) {
  const fs::path path = file_of(key);
  if (path.empty()) return;
  const Json json = {{"conforms", verdict.conforms},
                     {"sample", verdict.sample},
                     {"output", verdict.output},
                     {"distance", verdict.distance},
                     {"bound", verdict.bound},
                     {"problem", verdict.problem}};
  std::error_code error;
  fs::create_directories(path.parent_path(), error);
  std::string temporary = (path.parent_path() / ".XXXXXX").string();
  const int descriptor = ::mkstemp(temporary.data());
  if (descriptor < 0) return;
  const bool written = write_all(descriptor, json.dump(2) + "\n");
  const bool whole = ::close(descriptor) == 0 && written;
  if (!whole || std::rename(temporary.c_str(), path.c_str()) != 0) ::unlink(temporary.c_str());
}

}  // namespace pd
