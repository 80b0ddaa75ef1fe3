#pragma once
/// Answers of a decoder with bottleneck adapters, which llama.cpp cannot compute: `tailor-tune --answer BASE.gguf
/// BOTTLENECKS.safetensors` answers each line of its input, a JSON object, with one line (infer/torch_worker.h asks).
///
///   {"op": "scores", "prompts": [[ids]], "answers": [[ids]]}   {"scores": [[log p of each answer]]}
///   {"op": "losses", "tokens": [ids], "mask": [0 or 1]}        {"losses": [nats of each learnt token]}
///   {"op": "logits", "tokens": [ids]}                          {"logits": "hex"}, f32 little-endian, of the next
///   token;
///                                                              what this text and the last have in common is kept
/// An error is core/error_event.h's object. The first line comes unasked: {"ready": true}, or an error.

#include <filesystem>
#include <memory>

#include "core/json.h"
#include "core/result.h"

namespace tailor::tune {

/// Threads: one caller at a time.
class AnswerWorker {
 public:
  static Result<std::unique_ptr<AnswerWorker>> open(const std::filesystem::path& base,
                                                    const std::filesystem::path& bottlenecks);
  ~AnswerWorker();
  /// Never throws what a request can cause: errors are answers.
  Json answer(const Json& request);

 private:
  struct Impl;
  explicit AnswerWorker(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace tailor::tune
