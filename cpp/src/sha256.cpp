#include "sha256.hpp"

#include <algorithm>
#include <cstring>

namespace pd {
namespace {

// Fractional parts of the cube roots of the first 64 primes (FIPS 180-4, 4.2.2).
constexpr std::uint32_t kRound[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

std::uint32_t rotated(std::uint32_t value, int bits) {
  return (value >> bits) | (value << (32 - bits));
}

}  // namespace

void Sha256::update(const void *data, std::size_t size) {
  const auto *bytes = static_cast<const std::uint8_t *>(data);
  const std::size_t used = size_ % 64;
  size_ += size;
  if (used != 0) {
    const std::size_t taken = std::min(size, 64 - used);
    std::memcpy(pending_.data() + used, bytes, taken);
    bytes += taken;
    size -= taken;
    if (used + taken < 64) return;
    block(pending_.data());
  }
  for (; size >= 64; bytes += 64, size -= 64)
    block(bytes);
  if (size != 0) std::memcpy(pending_.data(), bytes, size);
}

std::string Sha256::finish() {
  const std::uint64_t bits = size_ * 8;
  const std::uint8_t one = 0x80, zero = 0;
  update(&one, 1);
  while (size_ % 64 != 56)
    update(&zero, 1);
  std::uint8_t length[8];
  for (int index = 0; index < 8; ++index)
    length[index] = static_cast<std::uint8_t>(bits >> (56 - 8 * index));
  update(length, sizeof length);
  std::string text;
  for (const std::uint32_t word : state_) {
    for (int shift = 28; shift >= 0; shift -= 4)
      text += "0123456789abcdef"[(word >> shift) & 15];
  }
  return text;
}

void Sha256::block(const std::uint8_t *data) {
  std::uint32_t words[64];
  for (int index = 0; index < 16; ++index, data += 4) {
    words[index] = static_cast<std::uint32_t>(data[0]) << 24 | static_cast<std::uint32_t>(data[1]) << 16 |
                   static_cast<std::uint32_t>(data[2]) << 8 | static_cast<std::uint32_t>(data[3]);
  }
  for (int index = 16; index < 64; ++index) {
    const std::uint32_t early = words[index - 15], late = words[index - 2];
    words[index] = words[index - 16] + (rotated(early, 7) ^ rotated(early, 18) ^ (early >> 3)) + words[index - 7] +
                   (rotated(late, 17) ^ rotated(late, 19) ^ (late >> 10));
  }
  auto [a, b, c, d, e, f, g, h] = state_;
  for (int index = 0; index < 64; ++index) {
    const std::uint32_t first =
        h + (rotated(e, 6) ^ rotated(e, 11) ^ rotated(e, 25)) + ((e & f) ^ (~e & g)) + kRound[index] + words[index];
    const std::uint32_t second = (rotated(a, 2) ^ rotated(a, 13) ^ rotated(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
    h = g;
    g = f;
    f = e;
    e = d + first;
    d = c;
    c = b;
    b = a;
    a = first + second;
  }
  const std::uint32_t added[8] = {a, b, c, d, e, f, g, h};
  for (std::size_t index = 0; index < 8; ++index)
    state_[index] += added[index];
}

}  // namespace pd
