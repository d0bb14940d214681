#include "onnx_header.hpp"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <stdexcept>
#include <string_view>

#include "error.hpp"
#include "files.hpp"
#include "text.hpp"

namespace pd {
namespace {

namespace fs = std::filesystem;

// Kinds of messages on the ways from a model to its tensors, those inside nodes and functions included.
enum class Kind { none, model, opset, graph, function, node, attribute, sparse, tensor, entry };

constexpr std::uint64_t kVarint = 0, kEightBytes = 1, kBytes = 2, kFourBytes = 5;
constexpr int kDeepest = 64;

// The kind of the message in a field, by the fields of onnx.proto.
Kind child(Kind kind, std::uint64_t field) {
  switch (kind) {
    case Kind::model:
      return field == 7 ? Kind::graph : field == 8 ? Kind::opset : field == 25 ? Kind::function : Kind::none;
    case Kind::graph:
      return field == 1 ? Kind::node : field == 5 ? Kind::tensor : field == 15 ? Kind::sparse : Kind::none;
    case Kind::function:
      return field == 7 ? Kind::node : field == 11 ? Kind::attribute : Kind::none;
    case Kind::node:
      return field == 5 ? Kind::attribute : Kind::none;
    case Kind::attribute:
      if (field == 5 || field == 10) return Kind::tensor;
      if (field == 6 || field == 11) return Kind::graph;
      return field == 22 || field == 23 ? Kind::sparse : Kind::none;
    case Kind::sparse:
      return field == 1 || field == 2 ? Kind::tensor : Kind::none;
    case Kind::tensor:
      return field == 13 ? Kind::entry : Kind::none;
    default:
      return Kind::none;
  }
}

std::invalid_argument malformed(const std::string &what) {
  return std::invalid_argument(what);
}

// Protocol Buffers: a tag of field number and wire type before each value.
class Message {
 public:
  explicit Message(std::string_view content) : rest_(content) {}

  // Reads the next field; false at the end.
  bool next() {
    if (rest_.empty()) return false;
    const std::uint64_t tag = varint();
    field = tag >> 3;
    number = 0;
    bytes = {};
    const std::uint64_t wire_type = tag & 7;
    if (wire_type == kVarint) {
      number = varint();
    } else if (wire_type == kBytes) {
      bytes = take(varint());
    } else if (wire_type == kEightBytes || wire_type == kFourBytes) {
      take(wire_type == kEightBytes ? 8 : 4);
    } else {
      throw malformed(concat("wire type ", wire_type));
    }
    if (field == 0) throw malformed("a field without a number");
    has_bytes = wire_type == kBytes;
    return true;
  }

  std::uint64_t field = 0;
  std::uint64_t number = 0;
  std::string_view bytes;
  bool has_bytes = false;

 private:
  std::string_view take(std::uint64_t count) {
    if (count > rest_.size()) throw malformed("a field that ends beyond its message");
    const std::string_view taken = rest_.substr(0, count);
    rest_.remove_prefix(count);
    return taken;
  }

  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (int shift = 0; shift < 70; shift += 7) {
      const auto byte = static_cast<std::uint8_t>(take(1)[0]);
      if (shift < 64) value |= static_cast<std::uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    throw malformed("a number of more than ten bytes");
  }

  std::string_view rest_;
};

std::uint64_t to_number(std::string_view digits) {
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  if (error != std::errc() || end != digits.data() + digits.size()) {
    throw malformed(concat("weights at ", repr(digits)));
  }
  return number;
}

// One entry of a tensor's `external_data`: a key and a value.
void read_entry(std::string_view bytes, ExternalData &data) {
  std::string_view key, value;
  for (Message entry(bytes); entry.next();) {
    if (entry.has_bytes && entry.field == 1) key = entry.bytes;
    if (entry.has_bytes && entry.field == 2) value = entry.bytes;
  }
  if (key == "location") data.location = value;
  if (key == "offset") data.offset = to_number(value);
  if (key == "length") data.length = to_number(value);
}

void read_message(std::string_view bytes, Kind kind, OnnxHeader &header, int depth) {
  if (depth > kDeepest) throw malformed(concat("messages nested more than ", kDeepest, " deep"));
  std::string domain;
  std::uint64_t version = 0;
  ExternalData data;
  bool external = false;
  for (Message message(bytes); message.next();) {
    const Kind inner = child(kind, message.field);
    if (!message.has_bytes) {
      if (kind == Kind::model && message.field == 1) header.ir_version = message.number;
      if (kind == Kind::opset && message.field == 2) version = message.number;
    } else if (inner == Kind::entry) {
      read_entry(message.bytes, data);
      external = true;
    } else if (inner != Kind::none) {
      read_message(message.bytes, inner, header, depth + 1);
    } else if (kind == Kind::opset && message.field == 1) {
      domain = message.bytes;
    }
  }
  if (kind == Kind::opset) header.opsets[domain] = version;
  if (external) header.external.push_back(data);
}

// The file that a model names, if it lies in the model's folder.
std::string beside(const fs::path &path, const std::string &location) {
  const fs::path named(location);
  const bool leaves = named.is_absolute() || std::find(named.begin(), named.end(), "..") != named.end() ||
                      location.find('\\') != std::string::npos || location.empty() || location == ".";
  if (leaves) {
    throw BundleError(
        concat(path.string(), " reads weights from ", repr(location),
               ", outside its folder; expected the name of a file beside it. Take the model from a source "
               "that you trust, or export the checkpoint again."));
  }
  const fs::path data = path.parent_path() / named;
  std::error_code error;
  if (!fs::is_regular_file(data, error)) {
    throw BundleError(concat(path.string(), " reads weights from ", repr(location),
                             ", which is not there. Copy that file beside the model, or export the checkpoint again."));
  }
  const fs::path inside = fs::canonical(data).lexically_relative(fs::canonical(path.parent_path()));
  if (inside.empty() || *inside.begin() == "..") {
    throw BundleError(concat(path.string(), " reads weights from ", repr(location),
                             ", a link to a file outside its folder. Replace the link by the file."));
  }
  return data.string();
}

}  // namespace

std::uint64_t OnnxHeader::opset() const {
  for (const char *domain : {"", "ai.onnx"}) {
    if (const auto found = opsets.find(domain); found != opsets.end()) return found->second;
  }
  return 1;
}

OnnxHeader read_onnx_header(const std::string &path) {
  OnnxHeader header;
  try {
    const MappedFile file(path);
    if (file.size() == 0) throw malformed("cannot mmap an empty file");
    read_message({reinterpret_cast<const char *>(file.data()), file.size()}, Kind::model, header, 0);
  } catch (const std::invalid_argument &error) {
    throw BundleError(concat(path, " is not an ONNX file (", error.what(), "). Give a bundle or an ONNX file."));
  } catch (const FileError &error) {
    throw BundleError(concat(path, " cannot be read: ", error.reason(), "."));
  }
  return header;
}

std::vector<std::string> external_files(const std::string &path) {
  std::vector<std::string> files;
  for (const ExternalData &entry : read_onnx_header(path).external) {
    const std::string data = beside(path, entry.location);
    const std::uint64_t size = fs::file_size(data);
    if (entry.offset > size || entry.length > size - entry.offset) {
      throw BundleError(concat(path, " reads ", repr(entry.location), " up to byte ", entry.offset + entry.length,
                               ", and that file has ", size,
                               " bytes. Copy the whole file, or export the checkpoint again."));
    }
    if (std::find(files.begin(), files.end(), data) == files.end()) files.push_back(data);
  }
  return files;
}

}  // namespace pd
