#include "fit/ready_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <string_view>
#include <utility>

#include "core/files.h"
#include "core/hash.h"
#include "infer/packed_matrix.h"
#include "model/added_tokens.h"
#include "model/import.h"
#include "model/requantize.h"
#include "model/rounded_model.h"

namespace tailor {
namespace fs = std::filesystem;
namespace {

constexpr std::uint64_t kMostHalfParameters = 1'000'000'000;
constexpr std::string_view kPackedTypes[] = {"q8_0", "q4_0", "q4_1"};

}  // namespace

fs::path model_cache_directory() {
  if (const char* cache = std::getenv("TAILOR_CACHE"); cache != nullptr && *cache != 0)
    return fs::path(cache) / "imported";
  if (const char* home = std::getenv("HOME"); home != nullptr && *home != 0)
    return fs::path(home) / ".cache" / "tailor" / "imported";
  return fs::temp_directory_path() / "tailor-imported";
}

Result<fs::path> ready_gguf(const ModelInfo& info, ModelUse use, const ProgressFn& progress) {
  if (use == ModelUse::kRounded) {
    TAILOR_TRY(const fs::path served, ready_gguf(info, ModelUse::kServing, progress));
    return rounded_to_bf16_cached(served, model_cache_directory());
  }
  const bool training = use == ModelUse::kTraining;
  const bool packed = use == ModelUse::kPrompting && packed_products();
  const fs::path cache = model_cache_directory();
  TAILOR_CHECK(make_directories(cache));
  if (info.is_hugging_face) {
    ImportType type = training ? ImportType::kF32 : ImportType::kF16;
    if (info.kind == ModelKind::kDecoder) {
      type = training                                          ? ImportType::kSource
             : packed || info.parameters > kMostHalfParameters ? ImportType::kQ8_0
                                                               : ImportType::kF16;
    }
    return import_cached(info.path, cache, {.type = type}, progress);
  }
  if (training || info.kind == ModelKind::kEncoder) return info.path;
  if (packed) {
    if (std::count(std::begin(kPackedTypes), std::end(kPackedTypes), info.file_type) > 0) return info.path;
    return requantize_cached(info.path, cache, QuantType::kQ8_0);
  }
  if (info.file_type == "f16") return info.path;
  // On AVX2 llama.cpp multiplies f16 a quarter faster than q8_0; above a thousand million parameters memory decides.
  if (info.parameters <= kMostHalfParameters) return requantize_cached(info.path, cache, QuantType::kF16);
  if (info.file_type == "q8_0" || info.file_type == "f32") return info.path;
  return requantize_cached(info.path, cache, QuantType::kQ8_0);
}

Result<ReadyModel> ready_model(const ModelInfo& info, ModelUse use, const ProgressFn& progress) {
  ReadyModel ready;
  TAILOR_TRY(ready.gguf, ready_gguf(info, use, progress));
  ready.base = {info.id,
                std::string(name_of(info.kind)),
                fs::absolute(ready.gguf).string(),
                "",
                info.licence.empty() ? "unknown" : info.licence,
                info.path.filename().string()};
  if (ready.gguf != info.path) ready.base.source += ", as " + ready.gguf.filename().string();
  TAILOR_TRY(ready.base.sha256, sha256_file(ready.gguf));
  return ready;
}

Result<ReadyModel> with_added_tokens(ReadyModel model, const std::vector<std::string>& tokens) {
  if (tokens.empty()) return model;
  std::string key = model.base.sha256;
  for (const std::string& token : tokens) key += "\n" + token;
  constexpr std::size_t kEnough = 24;
  const fs::path file = model_cache_directory() / ("tokens-" + sha256_hex(key).substr(0, kEnough) + ".gguf");
  std::error_code ignored;
  if (!fs::exists(file, ignored)) TAILOR_CHECK(add_tokens(model.gguf, tokens, file));
  model.gguf = file;
  model.base.source += fmt::format("; {} token(s) added", tokens.size());
  return model;
}

BaseModel tuned_base(BaseModel base, const std::string& file) {
  base.source += "; tuned weights in " + file;
  base.file = file;
  base.source_sha256 = std::exchange(base.sha256, "");
  return base;
}

}  // namespace tailor
