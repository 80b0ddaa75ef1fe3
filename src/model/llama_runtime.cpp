#include "model/llama_runtime.h"

#include <fmt/format.h>
#include <ggml-backend.h>
#include <llama.h>

#include <atomic>
#include <string_view>

#include "core/system.h"
#include "model/gguf_check.h"
#include "model/gguf_file.h"

namespace tailor {
namespace {

std::atomic<Logger*> g_logger{nullptr};  // llama.cpp's own log is process-wide, so this is too

thread_local std::string* t_first_error = nullptr;  // see LlamaErrorCatcher

void forward(ggml_log_level level, const char* text, void* /*user_data*/) {
  std::string_view message = text;
  while (!message.empty() && (message.back() == '\n' || message.back() == ' ')) message.remove_suffix(1);
  if (message.empty()) return;
  if (level == GGML_LOG_LEVEL_ERROR && t_first_error != nullptr && t_first_error->empty()) *t_first_error = message;
  Logger* logger = g_logger.load(std::memory_order_acquire);
  if (logger == nullptr) return;
  const bool loud = level == GGML_LOG_LEVEL_WARN || level == GGML_LOG_LEVEL_ERROR;
  logger->log(loud ? LogLevel::kWarning : LogLevel::kDebug, message);
}

}  // namespace

Status init_llama() {
  static const Status kStarted = []() -> Status {
    llama_log_set(forward, nullptr);
    // Not "is there a backend": infer/ggml_device.h may have brought one of our own.
    const auto absent = [] { return ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU) == nullptr; };
    if (absent()) {
      const auto directory = (program_directory() / "../lib/tailor").lexically_normal();
      ggml_backend_load_all_from_path(directory.c_str());
      // llama_backend_init() would go on looking in the current directory, where anybody may have put a library.
      if (absent())
        return Error{ErrorCode::kUnavailable,
                     fmt::format("{}: there is no libggml-cpu-*.so that this processor can run", directory.string()),
                     "unpack the whole archive again: bin/ and lib/ belong beside each other"};
    }
    llama_backend_init();
    return {};
  }();
  return kStarted;
}

void set_llama_log(Logger* logger) {
  g_logger.store(logger, std::memory_order_release);
}

LlamaErrorCatcher::LlamaErrorCatcher() : outer_(t_first_error) {
  t_first_error = &first_error_;
}
LlamaErrorCatcher::~LlamaErrorCatcher() {
  t_first_error = outer_;
}

void LlamaModelFree::operator()(llama_model* model) const {
  llama_model_free(model);
}

namespace {

/// Matrix tiles, for which llama.cpp repacks weights; with Q4_K its product ends the process.
bool has_amx() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("amx-int8") != 0;
#else
  return false;
#endif
}

}  // namespace

Result<LlamaModelPtr> load_llama_model(const std::filesystem::path& gguf, const LlamaLoadOptions& options) {
  llama_model_params params = llama_model_default_params();
  {
    TAILOR_TRY(const GgufFile file, GgufFile::open(gguf));
    TAILOR_CHECK(check_llama_metadata(file));
    const bool repack = !options.repack || options.repack(file);
    params.use_extra_bufts = repack && !has_amx();
  }
  TAILOR_CHECK(init_llama());
  params.vocab_only = options.vocab_only;
  params.n_gpu_layers = options.gpu_layers;
  params.load_mode = options.use_mmap ? LLAMA_LOAD_MODE_MMAP : LLAMA_LOAD_MODE_NONE;
  std::string reason;
  llama_model* model = nullptr;
  {
    const LlamaErrorCatcher catcher;
    try {
      model = llama_model_load_from_file(gguf.c_str(), params);
      reason = catcher.first_error();
    } catch (const std::exception& e) {
      reason = e.what();
    }
  }
  if (model == nullptr) {
    return Error{
        ErrorCode::kInvalidArgument,
        fmt::format("{}: llama.cpp cannot load this model{}{}", gguf.string(), reason.empty() ? "" : ": ", reason),
        "try a file converted for a recent llama.cpp, or another model"};
  }
  return LlamaModelPtr(model);
}

}  // namespace tailor
