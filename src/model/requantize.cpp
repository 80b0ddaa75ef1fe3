#include "model/requantize.h"

#include <fmt/format.h>
#include <llama.h>
#include <unistd.h>

#include <exception>
#include <string>
#include <system_error>

#include "core/files.h"
#include "model/file_hash.h"
#include "model/gguf_check.h"
#include "model/gguf_file.h"
#include "model/llama_runtime.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;

struct TypeRow {
  QuantType type;
  std::string_view name;
  llama_ftype file_type;
};
constexpr TypeRow kTypes[] = {
    {QuantType::kF16, "f16", LLAMA_FTYPE_MOSTLY_F16},        {QuantType::kQ8_0, "q8_0", LLAMA_FTYPE_MOSTLY_Q8_0},
    {QuantType::kQ6K, "q6_k", LLAMA_FTYPE_MOSTLY_Q6_K},      {QuantType::kQ5KM, "q5_k_m", LLAMA_FTYPE_MOSTLY_Q5_K_M},
    {QuantType::kQ4KM, "q4_k_m", LLAMA_FTYPE_MOSTLY_Q4_K_M}, {QuantType::kQ4_0, "q4_0", LLAMA_FTYPE_MOSTLY_Q4_0},
};

const TypeRow& row_of(QuantType type) {
  for (const TypeRow& row : kTypes) {
    if (row.type == type) return row;
  }
  return kTypes[0];
}

}  // namespace

std::string_view name_of(QuantType type) {
  return row_of(type).name;
}

std::optional<QuantType> quant_type(std::string_view name) {
  for (const TypeRow& row : kTypes) {
    if (row.name == name) return row.type;
  }
  return std::nullopt;
}

Status requantize(const fs::path& in, const fs::path& out, QuantType type, int threads) {
  {
    TAILOR_TRY(const GgufFile file, GgufFile::open(in));
    TAILOR_CHECK(check_llama_metadata(file));
  }
  TAILOR_CHECK(init_llama());
  llama_model_quantize_params params = llama_model_quantize_default_params();
  params.nthread = threads;
  params.ftype = row_of(type).file_type;
  params.allow_requantize = true;
  const fs::path temporary = fmt::format("{}.tmp-{}", out.string(), ::getpid());
  std::error_code ec;
  std::string reason = "see llama.cpp's log";
  bool done = false;
  {
    const LlamaErrorCatcher catcher;
    try {
      done = llama_model_quantize(in.c_str(), temporary.c_str(), &params) == 0;
    } catch (const std::exception& e) {
      reason = e.what();
    }
    if (!catcher.first_error().empty()) reason = catcher.first_error();
  }
  if (done) {
    // llama.cpp does not look at the stream's state after writing: a full disk shows as a file that is too short.
    if (const auto written = GgufFile::open(temporary); !written) {
      done = false;
      reason = "the file was not written whole; is the disk full?";
    }
  }
  if (!done) {
    fs::remove(temporary, ec);
    return Error{ErrorCode::kIo, fmt::format("{}: cannot be written as {}: {}", in.string(), name_of(type), reason),
                 ""};
  }
  fs::rename(temporary, out, ec);
  if (ec) {
    const std::string why = ec.message();
    fs::remove(temporary, ec);
    return Error{ErrorCode::kIo, fmt::format("{}: {}", out.string(), why), ""};
  }
  return {};
}

Result<fs::path> requantize_cached(const fs::path& in, const fs::path& cache_dir, QuantType type, int threads) {
  TAILOR_TRY(const std::string hash, cached_sha256(in));
  const fs::path out = cache_dir / fmt::format("{}-{}-{}.gguf", in.stem().string(), hash.substr(0, 16), name_of(type));
  std::error_code ec;
  if (fs::exists(out, ec)) return out;
  TAILOR_CHECK(make_directories(cache_dir));
  TAILOR_CHECK(requantize(in, out, type, threads));
  return out;
}

}  // namespace tailor
