#include "npz.hpp"

#include <algorithm>
#include <charconv>
#include <stdexcept>

#include "dtypes.hpp"
#include "error.hpp"
#include "files.hpp"
#include "text.hpp"

namespace pd {
namespace {

// By the section of PKWARE's APPNOTE.TXT: 4.3.7, 4.3.12 and 4.3.16.
constexpr std::string_view kLocal("PK\3\4", 4), kCentral("PK\1\2", 4), kEnd("PK\5\6", 4);
constexpr std::size_t kLocalBytes = 30, kCentralBytes = 46, kEndBytes = 22;
constexpr std::uint64_t kStored = 0, kDeflated = 8, kEncrypted = 1, kZip64 = 0xffffffff;
constexpr std::size_t kMostDimensions = 64;  // of NumPy

struct Dtype {
  std::string_view descr;
  pd_dtype dtype;
};
constexpr Dtype kNpyDtypes[] = {{"<f4", PD_FLOAT32}, {"<f8", PD_FLOAT64}, {"<f2", PD_FLOAT16},
                                {"<i8", PD_INT64},   {"|u1", PD_UINT8},   {"<i2", PD_INT16}};

std::invalid_argument malformed(const std::string &what) {
  return std::invalid_argument(what);
}

std::string_view part(std::string_view content, std::uint64_t start, std::uint64_t count) {
  if (start > content.size() || count > content.size() - start) throw malformed("something lies beyond its end");
  return content.substr(start, count);
}

// A number of `bytes` bytes, the lowest first.
std::uint64_t number_at(std::string_view content, std::size_t start, std::size_t bytes) {
  std::uint64_t number = 0;
  const std::string_view found = part(content, start, bytes);
  for (std::size_t index = bytes; index-- > 0;)
    number = number << 8 | static_cast<std::uint8_t>(found[index]);
  return number;
}

// A record of a fixed size that begins with its signature.
std::string_view record(std::string_view content, std::uint64_t start, std::size_t bytes, std::string_view signature) {
  const std::string_view found = part(content, start, bytes);
  if (found.substr(0, signature.size()) != signature) throw malformed("a record of a zip file is missing");
  return found;
}

// The header of a .npy file: the text of a Python dict of three items.
struct Header {
  std::string_view descr;
  bool fortran = false;
  std::vector<std::int64_t> shape;
};

class HeaderReader {
 public:
  explicit HeaderReader(std::string_view text) : rest_(text) {}

  Header read() {
    Header header;
    std::size_t items = 0;
    expect("{");
    while (!take("}")) {
      ++items;
      const std::string_view key = quoted();
      expect(":");
      if (key == "descr") {
        header.descr = quoted();
      } else if (key == "fortran_order") {
        header.fortran = take("True");
        if (!header.fortran) expect("False");
      } else if (key == "shape") {
        header.shape = shape();
      } else {
        throw unreadable();
      }
      if (take(",")) continue;
      expect("}");
      break;
    }
    if (items != 3) throw unreadable();
    return header;
  }

 private:
  static std::invalid_argument unreadable() { return malformed("the header of an array cannot be read"); }

  bool take(std::string_view token) {
    rest_.remove_prefix(std::min(rest_.find_first_not_of(" \n"), rest_.size()));
    const bool here = rest_.substr(0, token.size()) == token;
    if (here) rest_.remove_prefix(token.size());
    return here;
  }

  void expect(std::string_view token) {
    if (!take(token)) throw unreadable();
  }

  std::string_view quoted() {
    expect("'");
    const std::string_view text = rest_.substr(0, rest_.find('\''));
    rest_.remove_prefix(text.size());
    expect("'");
    return text;
  }

  std::vector<std::int64_t> shape() {
    std::vector<std::int64_t> sizes;
    expect("(");
    while (!take(")")) {
      take("");  // spaces
      std::int64_t size = 0;
      const auto [end, error] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), size);
      if (error != std::errc() || size < 0 || sizes.size() == kMostDimensions) throw unreadable();
      rest_.remove_prefix(static_cast<std::size_t>(end - rest_.data()));
      sizes.push_back(size);
      if (take(",")) continue;
      expect(")");
      break;
    }
    return sizes;
  }

  std::string_view rest_;
};

// Elements in Fortran's order, of which the first index changes fastest, in C order.
std::vector<char> in_c_order(std::string_view data, const std::vector<std::int64_t> &shape, std::size_t bytes) {
  std::vector<char> ordered;
  ordered.reserve(data.size());
  std::vector<std::int64_t> place(shape.size(), 0);
  while (ordered.size() < data.size()) {
    std::size_t start = 0;
    for (std::size_t dimension = shape.size(); dimension-- > 0;)
      start = start * static_cast<std::size_t>(shape[dimension]) + static_cast<std::size_t>(place[dimension]);
    const std::string_view element = data.substr(start * bytes, bytes);
    ordered.insert(ordered.end(), element.begin(), element.end());
    for (std::size_t dimension = shape.size(); dimension-- > 0 && ++place[dimension] == shape[dimension];)
      place[dimension] = 0;
  }
  return ordered;
}

// Nothing where models have no such dtype.
std::optional<Array> read_npy(std::string_view content) {
  constexpr std::string_view kMagic = "\x93NUMPY";
  if (content.substr(0, kMagic.size()) != kMagic) throw malformed("an array does not begin as one of NumPy");
  const std::uint64_t version = number_at(content, 6, 1);
  if (version != 1 && version != 2) throw malformed(concat("an array has version ", version, " of NumPy's format"));
  const std::size_t length_bytes = version == 1 ? 2 : 4, start = 8 + length_bytes;
  const std::uint64_t length = number_at(content, 8, length_bytes);
  const Header header = HeaderReader(part(content, start, length)).read();
  const auto found = std::find_if(std::begin(kNpyDtypes), std::end(kNpyDtypes),
                                  [&](const Dtype &item) { return item.descr == header.descr; });
  if (found == std::end(kNpyDtypes)) return std::nullopt;
  const std::string_view data = content.substr(start + length);
  const std::size_t element = dtype_info(found->dtype)->bytes;
  std::size_t bytes = element;
  for (const std::int64_t size : header.shape) {
    if (__builtin_mul_overflow(bytes, static_cast<std::size_t>(size), &bytes)) throw malformed("an array is too large");
  }
  if (bytes != data.size()) throw malformed(concat("an array of ", bytes, " bytes has ", data.size()));
  if (header.fortran) return Array{found->dtype, header.shape, in_c_order(data, header.shape, element)};
  return Array{found->dtype, header.shape, {data.begin(), data.end()}};
}

// Where the entry's content lies. Its own header may give no sizes, as NumPy writes it; the directory's do.
std::string_view content_of(std::string_view content, std::uint64_t start, std::uint64_t bytes) {
  const std::string_view local = record(content, start, kLocalBytes, kLocal);
  return part(content, start + kLocalBytes + number_at(local, 26, 2) + number_at(local, 28, 2), bytes);
}

std::optional<Named<Array>> read_entries(std::string_view content) {
  if (content.size() < kEndBytes) throw malformed("it is too short for a zip file");
  const std::string_view end = record(content, content.size() - kEndBytes, kEndBytes, kEnd);
  const std::uint64_t entries = number_at(end, 10, 2);
  std::uint64_t place = number_at(end, 16, 4), total = 0;
  if (entries == 0xffff || place == kZip64) throw malformed("it is of 4 GB or more");
  Named<Array> arrays;
  for (std::uint64_t index = 0; index < entries; ++index) {
    const std::string_view entry = record(content, place, kCentralBytes, kCentral);
    const std::uint64_t method = number_at(entry, 10, 2), stored = number_at(entry, 20, 4), size = number_at(entry, 24, 4);
    const std::uint64_t name_bytes = number_at(entry, 28, 2), local = number_at(entry, 42, 4);
    std::string_view name = part(content, place + kCentralBytes, name_bytes);
    place += kCentralBytes + name_bytes + number_at(entry, 30, 2) + number_at(entry, 32, 2);
    if (number_at(entry, 8, 2) & kEncrypted) throw malformed("it is encrypted");
    if (method == kDeflated) return std::nullopt;
    if (method != kStored || stored != size) throw malformed("it is compressed in another way than NumPy's");
    if (stored == kZip64 || local == kZip64) throw malformed("it is of 4 GB or more");
    total += stored;
    if (total > content.size()) throw malformed("its entries overlap");
    constexpr std::string_view kSuffix = ".npy";
    if (name.size() < kSuffix.size() || name.substr(name.size() - kSuffix.size()) != kSuffix) continue;
    name.remove_suffix(kSuffix.size());
    if (find(arrays, name) != nullptr) throw malformed(concat("it has ", repr(name), " twice"));
    auto array = read_npy(content_of(content, local, stored));
    if (array) arrays.emplace_back(name, std::move(*array));
  }
  return arrays;
}

}  // namespace

std::optional<Named<Array>> parse_npz(std::string_view content, const std::string &path) {
  try {
    return read_entries(content);
  } catch (const std::invalid_argument &error) {
    throw BundleError(
        concat(path, " is not an .npz file of NumPy: ", error.what(), ". Export the checkpoint again."));
  }
}

std::optional<Named<Array>> read_npz(const std::string &path) {
  try {
    const MappedFile file(path);
    return parse_npz({reinterpret_cast<const char *>(file.data()), file.size()}, path);
  } catch (const FileError &error) {
    throw BundleError(concat(path, " cannot be read: ", error.reason(), "."));
  }
}

}  // namespace pd
