// Reading files, with errors as numbers of the system.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace pd {

// Why the system refused: the number of errno.
struct FileError {
  int number;
  std::string reason() const;  // "No such file or directory"
};

// Throws FileError, as the functions below do.
std::string read_file(const std::string &path);

struct Digest {
  std::string sha256;
  std::int64_t bytes;
};

Digest digest_file(const std::string &path);

// A file mapped into memory for reading.
class MappedFile {
 public:
  explicit MappedFile(const std::string &path);
  ~MappedFile();
  MappedFile(const MappedFile &) = delete;
  MappedFile &operator=(const MappedFile &) = delete;

  const std::uint8_t *data() const { return static_cast<const std::uint8_t *>(data_); }
  std::size_t size() const { return size_; }

 private:
  void *data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace pd
