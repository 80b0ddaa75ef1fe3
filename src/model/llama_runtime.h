#pragma once
/// The one place where llama.cpp's process-wide state is touched: its backends and its log.

#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "core/log.h"
#include "core/result.h"

struct llama_model;  // llama.h

namespace tailor {

class GgufFile;

/// Starts llama.cpp's backends; the first call silences its log unless set_llama_log() was called before. Any thread,
/// any number of times. Where llama.cpp was built with backends to load at run time (`make dist`), the best for this
/// processor is taken from ../lib/tailor beside the program; kUnavailable if there is none.
Status init_llama();

/// Where llama.cpp's messages go: warnings and errors as warnings, the rest as debug. nullptr (the start): nowhere. The
/// logger must live until it is replaced and be safe to call from any thread.
void set_llama_log(Logger* logger);

/// While it lives: the first error line llama.cpp logs on this thread, which often is all it says about a failure. May
/// nest; the inner one takes the lines.
class LlamaErrorCatcher {
 public:
  LlamaErrorCatcher();
  LlamaErrorCatcher(const LlamaErrorCatcher&) = delete;
  LlamaErrorCatcher& operator=(const LlamaErrorCatcher&) = delete;
  ~LlamaErrorCatcher();
  const std::string& first_error() const { return first_error_; }

 private:
  std::string first_error_;
  std::string* outer_;
};

struct LlamaModelFree {
  void operator()(llama_model* model) const;
};
using LlamaModelPtr = std::unique_ptr<llama_model, LlamaModelFree>;

/// Loads a GGUF file after GgufFile's and check_llama_metadata()'s checks, so that a hostile file is an Error and not
/// an abort. `vocab_only` reads no weights.
struct LlamaLoadOptions {
  bool vocab_only = false;
  bool use_mmap = true;  // pages are read when needed and shared between processes
  int gpu_layers = 0;    // -1: all
  /// Whether weights go into llama.cpp's own order for this processor, where it has one; empty: they do.
  std::function<bool(const GgufFile&)> repack;
};
Result<LlamaModelPtr> load_llama_model(const std::filesystem::path& gguf, const LlamaLoadOptions& options = {});

}  // namespace tailor
