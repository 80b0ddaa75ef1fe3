#include "serve/memory_fit.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>

#include "fit/budget.h"
#include "model/cell_bytes.h"
#include "model/gguf_file.h"

namespace tailor {
namespace {

constexpr std::uint64_t kComputing = std::uint64_t{64} << 20;
constexpr std::int64_t kFewTokens = 2048;

std::string size(std::uint64_t bytes) {
  return human_bytes(static_cast<double>(bytes));
}

}  // namespace

Result<std::uint64_t> check_memory(const std::filesystem::path& gguf, std::uint64_t cache_bytes,
                                   std::uint64_t available_bytes, std::uint64_t held_bytes) {
  const auto file = GgufFile::open(gguf);
  if (!file || available_bytes == 0) return std::uint64_t{UINT64_MAX};
  const auto architecture = file->architecture();
  if (!architecture) return std::uint64_t{UINT64_MAX};
  std::uint64_t weights = 0, elements = 0;
  for (const GgufTensor& tensor : file->tensors()) {
    weights += tensor.bytes.size();
    elements += tensor.elements;
  }
  const std::uint64_t token = cell_bytes(*file);
  const auto trained = file->integer(*architecture + ".context_length");
  const std::uint64_t least = token * static_cast<std::uint64_t>(std::min(
                                          kFewTokens, trained ? std::max<std::int64_t>(*trained, 1) : kFewTokens));
  const std::uint64_t cache = cache_bytes > 0 ? cache_bytes - std::min(cache_bytes, held_bytes) : least;
  const std::uint64_t needed = weights + kComputing + cache;
  if (needed <= available_bytes) return available_bytes - weights - kComputing;
  std::string hint;
  if (weights + kComputing + least <= available_bytes) {
    const std::uint64_t room = available_bytes - weights - kComputing;
    hint = fmt::format("a cache of {} fits{}: --cache-bytes {} (about {} tokens of prompts and answers)",
                       size(held_bytes + room), held_bytes > 0 ? " for all models together" : "", held_bytes + room,
                       room / token);
  } else {
    // Bits of a weight that leave room for the rest; formats with their measured sizes.
    struct Format {
      const char* name;
      double bits;
    };
    constexpr Format kFormats[] = {{"q8_0", 8.5}, {"q4_k_m", 4.9}, {"q4_0", 4.5}};
    const double room =
        static_cast<double>(available_bytes) - static_cast<double>(kComputing) - static_cast<double>(least);
    for (const Format& format : kFormats) {
      const double bytes = static_cast<double>(elements) * format.bits / 8;
      if (bytes < 0.9 * static_cast<double>(weights) && bytes <= room) {
        hint = fmt::format("its weights as {} would take about {} and fit", format.name,
                           size(static_cast<std::uint64_t>(bytes)));
        break;
      }
    }
    if (hint.empty()) hint = "take a smaller model, or a machine with more memory";
  }
  return Error{ErrorCode::kOutOfMemory,
               fmt::format("{}: does not fit into memory: weights {}, keys and values {}, together with what computing "
                           "takes {}; {} are free",
                           gguf.filename().string(), size(weights), size(cache), size(needed), size(available_bytes)),
               hint};
}

Status check_memory(std::vector<std::filesystem::path> ggufs, std::uint64_t available_bytes) {
  if (ggufs.empty() || available_bytes == 0) return {};
  const auto bytes = [](const std::filesystem::path& file) -> std::uint64_t {
    std::error_code missing;
    const std::uintmax_t size = std::filesystem::file_size(file, missing);
    return missing ? 0 : size;
  };
  // Of the largest, which is what can be exchanged, beside the others.
  const auto largest =
      std::max_element(ggufs.begin(), ggufs.end(), [&](const auto& a, const auto& b) { return bytes(a) < bytes(b); });
  std::uint64_t others = 0;
  for (auto it = ggufs.begin(); it != ggufs.end(); ++it) {
    if (it != largest) others += bytes(*it);
  }
  const std::uint64_t left = available_bytes - std::min(available_bytes - 1, others);  // 0 would mean "not known"
  const auto fits = check_memory(*largest, 0, left);
  return fits ? Status() : Status(fits.error());
}

}  // namespace tailor
