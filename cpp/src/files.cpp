#include "files.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "sha256.hpp"

namespace pd {
namespace {

constexpr std::size_t kPiece = 1 << 20;

class Descriptor {
 public:
  explicit Descriptor(const std::string &path) : number_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (number_ < 0) throw FileError{errno};
  }
  ~Descriptor() { ::close(number_); }
  Descriptor(const Descriptor &) = delete;
  Descriptor &operator=(const Descriptor &) = delete;

  int number() const { return number_; }

 private:
  int number_;
};

// Calls `take(data, size)` on piece after piece.
template <class Take>
void read_pieces(const std::string &path, const Take &take) {
  const Descriptor file(path);
  std::vector<char> piece(kPiece);
  for (;;) {
    const ssize_t count = ::read(file.number(), piece.data(), piece.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw FileError{errno};
    if (count == 0) return;
    take(piece.data(), static_cast<std::size_t>(count));
  }
}

}  // namespace

std::string FileError::reason() const {
  return std::strerror(number);
}

std::string read_file(const std::string &path) {
  std::string content;
  read_pieces(path, [&](const char *data, std::size_t size) { content.append(data, size); });
  return content;
}

Digest digest_file(const std::string &path) {
  Sha256 hash;
  std::int64_t bytes = 0;
  read_pieces(path, [&](const char *data, std::size_t size) {
    hash.update(data, size);
    bytes += static_cast<std::int64_t>(size);
  });
  return {hash.finish(), bytes};
}

MappedFile::MappedFile(const std::string &path) {
  const Descriptor file(path);
  struct stat status{};
  if (::fstat(file.number(), &status) != 0) throw FileError{errno};
  size_ = static_cast<std::size_t>(status.st_size);
  if (size_ == 0) return;
  data_ = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file.number(), 0);
  if (data_ == MAP_FAILED) throw FileError{errno};
}

MappedFile::~MappedFile() {
  if (size_ != 0) ::munmap(data_, size_);
}

}  // namespace pd
