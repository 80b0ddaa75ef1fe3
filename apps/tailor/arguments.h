#pragma once
/// Words of the command line into values.

#include <cstdint>
#include <string>

#include "core/result.h"

namespace tailor {

Result<double> parse_duration(const std::string& text);      // "90", "90s", "15m", "1h30m", "30d" -> seconds
Result<std::uint64_t> parse_bytes(const std::string& text);  // "500MB", "4GiB", "1000000" -> bytes
Result<double> parse_milliseconds(const std::string& text);  // "20", "20ms", "1.5s" -> milliseconds

}  // namespace tailor
