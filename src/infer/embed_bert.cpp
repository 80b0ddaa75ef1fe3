#include <algorithm>
#include <optional>
#include <vector>

#include "infer/bert_encoder.h"
#include "infer/embed_backend.h"
#include "model/gguf_file.h"

namespace tailor {
namespace {

class BertBackend final : public EmbedBackend {
 public:
  BertBackend(BertEncoder encoder, Tokenizer tokenizer, Pooling pooling, bool pairs, int threads)
      : encoder_(std::move(encoder)),
        tokenizer_(std::move(tokenizer)),
        pooling_(pooling),
        separator_(pairs && tokenizer_.token_types() > 1 ? tokenizer_.sep() : -1),
        scratch_(static_cast<std::size_t>(threads)) {}
  const Tokenizer& tokenizer() const override { return tokenizer_; }
  bool is_encoder() const override { return true; }
  int dim() const override { return static_cast<int>(encoder_.width()); }
  int max_texts() const override { return 4096; }

  Status embed(int worker, std::span<const TokenText> texts,
               const std::function<void(std::size_t, std::span<const float>)>& store) override {
    const std::size_t width = encoder_.width();
    const std::span<const float> states =
        encoder_.hidden_states(texts, scratch_[static_cast<std::size_t>(worker)], separator_);
    std::vector<float> mean(width);
    std::size_t row = 0;
    for (std::size_t t = 0; t < texts.size(); ++t) {
      const std::size_t n = texts[t].size();
      if (pooling_ == Pooling::kMean) {
        std::fill(mean.begin(), mean.end(), 0.0f);
        for (std::size_t p = 0; p < n; ++p) {
          for (std::size_t i = 0; i < width; ++i) mean[i] += states[(row + p) * width + i];
        }
        for (float& v : mean) v /= static_cast<float>(n);
        store(t, mean);
      } else {
        store(t, states.subspan((pooling_ == Pooling::kCls ? row : row + n - 1) * width, width));
      }
      row += n;
    }
    return {};
  }

  Status states(int worker, std::span<const TokenText> texts,
                const std::function<void(std::size_t, std::span<const float>)>& store) override {
    const std::size_t width = encoder_.width();
    const std::span<const float> all =
        encoder_.hidden_states(texts, scratch_[static_cast<std::size_t>(worker)], separator_);
    std::size_t row = 0;
    for (std::size_t t = 0; t < texts.size(); row += texts[t++].size())
      store(t, all.subspan(row * width, texts[t].size() * width));
    return {};
  }

 private:
  BertEncoder encoder_;
  Tokenizer tokenizer_;
  Pooling pooling_;
  std::int32_t separator_;
  std::vector<BertEncoder::Scratch> scratch_;
};

}  // namespace

Result<std::unique_ptr<EmbedBackend>> make_bert_backend(const EmbedModel& model,
                                                        const std::filesystem::path& bottlenecks, int threads) {
  TAILOR_TRY(const GgufFile file, GgufFile::open(model.file));
  TAILOR_TRY(BertEncoder encoder, BertEncoder::load(file, bottlenecks));
  TAILOR_TRY(Tokenizer tokenizer, Tokenizer::load(model.file));
  if (tokenizer.vocabulary_size() > encoder.vocabulary() ||
      static_cast<std::size_t>(model.max_tokens) > encoder.max_positions()) {
    return Error{ErrorCode::kCorruptData,
                 model.file.string() + ": its embedding tables are smaller than its vocabulary or its context",
                 "use another file of this model"};
  }
  return std::unique_ptr<EmbedBackend>(
      std::make_unique<BertBackend>(std::move(encoder), std::move(tokenizer), model.pooling, model.pairs, threads));
}

}  // namespace tailor
