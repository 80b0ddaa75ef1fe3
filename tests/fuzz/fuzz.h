#pragma once
/// Fuzz targets for bytes that come from others. A target gives seeds and takes any bytes; it must return: crashes,
/// sanitizer reports, escaping exceptions and endless loops are the findings. libFuzzer can link the same targets.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace tailor::fuzz {

/// Good inputs of the target's format, small.
std::vector<std::string> seeds();

/// Adds inputs that begin with "q", by which targets know bytes that say how to make an input, and `bytes` random ones.
void add_invented(std::vector<std::string>& seeds, std::uint64_t seed, int bytes);

/// A file in memory that holds one input at a time.
class InputFile {
 public:
  InputFile();
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;
  const std::filesystem::path& put(std::string_view bytes);

 private:
  int descriptor_ = -1;
  std::filesystem::path path_;
};

}  // namespace tailor::fuzz
