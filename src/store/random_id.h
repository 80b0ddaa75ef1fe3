#pragma once
/// Random names and secrets, from the operating system's generator.

#include <cstddef>
#include <string>
#include <string_view>

namespace tailor {

/// Throws Exception{kUnavailable} where the system has no random numbers to give.
std::string random_bytes(std::size_t count);

/// `prefix` and `length` characters of 0-9A-Za-z, each equally likely (5.95 bits).
std::string random_id(std::string_view prefix, std::size_t length);

}  // namespace tailor
