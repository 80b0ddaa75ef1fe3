#include "store/random_id.h"

#include <sys/random.h>

#include <cerrno>

#include "core/result.h"

namespace tailor {

std::string random_bytes(std::size_t count) {
  std::string bytes(count, '\0');
  std::size_t have = 0;
  while (have < count) {
    const ssize_t n = ::getrandom(bytes.data() + have, count - have, 0);
    if (n < 0 && errno != EINTR)
      throw Exception({ErrorCode::kUnavailable, "the operating system gives no random numbers", ""});
    if (n > 0) have += static_cast<std::size_t>(n);
  }
  return bytes;
}

std::string random_id(std::string_view prefix, std::size_t length) {
  static constexpr std::string_view kAlphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
  std::string id(prefix);
  while (id.size() < prefix.size() + length) {
    for (const char byte : random_bytes(length)) {
      const auto index = static_cast<unsigned char>(byte) & 63U;  // 62 and 63 are thrown again, lest two be likelier
      if (index < kAlphabet.size() && id.size() < prefix.size() + length) id += kAlphabet[index];
    }
  }
  return id;
}

}  // namespace tailor
