#pragma once
/// What llama.cpp itself computes of one text: one context, one sequence, its own attention. The reference of what the
/// engine computes together.

#include <algorithm>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "infer/engine.h"
#include "infer/llama_context.h"
#include "infer/log_softmax.h"
#include "infer/soft_prompt.h"
#include "infer/text_stream.h"

namespace tailor::testing {

class ReferenceDecoder {
 public:
  struct Answer {
    TokenList tokens;  // the end included
    std::string text;
    FinishReason finish = FinishReason::kLength;
  };

  /// Keys and values in 16 bits where not `f32`.
  explicit ReferenceDecoder(const std::filesystem::path& gguf, const std::filesystem::path& soft = {}, bool f32 = true)
      : model_(LoadedModel::load(gguf, {}).value()), ends_(model_->end_tokens()), f32_(f32) {
    if (!soft.empty()) soft_ = SoftPrompt::load(soft).value();
  }

  /// Always the likeliest token.
  Answer answer(const TokenList& prompt, int most = 12, bool ignore_end = false) {
    open(prompt.size() + static_cast<std::size_t>(most));
    std::vector<float> logits = decode(prompt);
    Answer out;
    while (static_cast<int>(out.tokens.size()) < most) {
      for (const std::int32_t end : ends_) {
        if (ignore_end) logits[static_cast<std::size_t>(end)] = -std::numeric_limits<float>::infinity();
      }
      const auto token = static_cast<std::int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
      out.tokens.push_back(token);
      if (std::find(ends_.begin(), ends_.end(), token) != ends_.end()) {
        out.finish = FinishReason::kStop;
        break;
      }
      out.text += model_->tokenizer().decode({&token, 1});
      if (static_cast<int>(out.tokens.size()) < most) logits = decode({token});
    }
    out.text.resize(out.text.size() - unfinished_bytes(out.text));
    return out;
  }

  /// -log p of tokens 1, 2, …
  std::vector<double> losses(const TokenList& tokens) {
    open(tokens.size());
    std::vector<double> out;
    for (std::size_t i = 0; i + 1 < tokens.size(); ++i) {
      const std::vector<float> logits = decode({tokens[i]});
      out.push_back(log_sum_exp(logits) - static_cast<double>(logits[static_cast<std::size_t>(tokens[i + 1])]));
    }
    return out;
  }

 private:
  void open(std::size_t tokens) {
    llama_context_params params = llama_context_default_params();
    params.n_ctx = static_cast<std::uint32_t>(tokens) + static_cast<std::uint32_t>(soft_.length());
    params.n_batch = params.n_ubatch = 512;
    params.n_threads = params.n_threads_batch = 1;
    params.type_k = params.type_v = f32_ ? GGML_TYPE_F32 : GGML_TYPE_F16;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    context_.reset();
    context_ = model_->make_context(params).value();
    decode_soft_prompt(context_.get(), soft_, 512).value();
    held_ = soft_.length();
  }
  /// Logits after the last of `tokens`.
  std::vector<float> decode(const TokenList& tokens) {
    for (std::size_t first = 0; first < tokens.size(); first += 512) {
      DecodeBatch batch;
      for (std::size_t i = first; i < std::min(first + 512, tokens.size()); ++i)
        batch.add(tokens[i], held_++, {0, 1}, i + 1 == tokens.size());
      batch.decode(context_.get(), "the reference").value();
    }
    const float* logits = llama_get_logits_ith(context_.get(), -1);
    return {logits, logits + model_->vocabulary()};
  }

  std::shared_ptr<const LoadedModel> model_;
  std::vector<std::int32_t> ends_;
  SoftPrompt soft_;
  bool f32_;
  LlamaContextPtr context_;
  int held_ = 0;
};

}  // namespace tailor::testing
