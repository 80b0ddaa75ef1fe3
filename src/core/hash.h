#pragma once
/// Hashes: SHA-256 for identity of files and texts (FIPS 180-4, by OpenSSL's libcrypto), a fast 64-bit hash for tables.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "core/result.h"

namespace tailor {

/// Of bytes that come in pieces. After hex() or bytes() it is spent.
class Sha256 {
 public:
  Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;
  ~Sha256();
  void add(std::string_view bytes);
  std::string bytes();  // 32
  std::string hex();    // 64 characters, lower case

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

std::string to_hex(std::string_view bytes);     // lower case
std::string to_base64(std::string_view bytes);  // RFC 4648, padded

/// Lower-case hex, 64 characters.
std::string sha256_hex(std::string_view bytes);
Result<std::string> sha256_file(const std::filesystem::path& file);

/// FNV-1a over the bytes, finished with Rng::mix; stable across machines and versions.
std::uint64_t hash64(std::string_view bytes, std::uint64_t seed = 0);

}  // namespace tailor
