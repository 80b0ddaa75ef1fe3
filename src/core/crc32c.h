#pragma once
/// CRC-32C (Castagnoli polynomial 0x1EDC6F41, reflected; RFC 3720, appendix B.4), as TFRecord files use it.

#include <cstdint>
#include <string_view>

namespace tailor {

std::uint32_t crc32c(std::string_view bytes);

/// TFRecord's masked form: rotated right by 15 bits, plus 0xa282ead8, so that the sum of bytes that hold a sum is not
/// itself.
std::uint32_t masked_crc32c(std::string_view bytes);

}  // namespace tailor
