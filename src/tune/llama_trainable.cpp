#include "tune/llama_trainable.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/json.h"
#include "tune/llama_export.h"

namespace tailor::tune::llama {
namespace {

constexpr std::int64_t kScoreTokens = 768;  // about so many tokens pass the model at once in label_scores

LoraConfig lora_config(const LoraSettings& s) {
  LoraConfig c;
  c.rank = s.r;
  c.alpha = s.alpha;
  c.dropout = s.dropout;
  c.targets = s.target_modules;
  return c;
}

std::unique_ptr<LlamaWeights> open_weights(const ModelInput& input, WeightStorage storage) {
  return std::move(LlamaWeights::open(input.weights, storage)).value();
}

std::string row_name(const TokenFile& file, std::int64_t row) {
  return fmt::format("row {}", file.row_ids[static_cast<std::size_t>(row)]);
}

}  // namespace

LoraClassifier::LoraClassifier(const ModelInput& input, WeightStorage storage)
    : file_(input.file),
      config_(lora_config(input.job.settings.lora)),
      weights_(open_weights(input, storage)),
      adapters_(LoraAdapters::attach(weights_->config(), config_, input.job.seed, parameters_).value()),
      decoder_(*weights_, &adapters_) {
  const LlamaConfig& c = weights_->config();
  if (file_.vocab_size > c.vocab) {
    throw Exception({ErrorCode::kInvalidArgument,
                     fmt::format("the token file has ids below {}, but {} knows {} tokens", file_.vocab_size,
                                 weights_->path().filename().string(), c.vocab),
                     "tokenise the rows with this model's tokenizer"});
  }
  const bool has_answers = file_.label_offsets.size() == static_cast<std::size_t>(file_.n_labels) + 1;
  if (file_.n_labels > 0 && !has_answers) {
    throw Exception({ErrorCode::kInvalidArgument, "the token file has labels but not the tokens of their answers",
                     "write label_tokens and label_offsets"});
  }
  for (std::int32_t l = 0; l < file_.n_labels; ++l) {
    if (!file_.label(static_cast<std::size_t>(l)).empty()) continue;
    throw Exception({ErrorCode::kInvalidArgument, fmt::format("label {} has no answer tokens", l), "give it a name"});
  }
  for (std::int64_t r = 0; r < static_cast<std::int64_t>(file_.rows()); ++r) {
    const Row row = whole(r);
    const auto length = static_cast<std::int64_t>(row.tokens.size());
    if (length > c.context) {
      throw Exception(
          {ErrorCode::kInvalidArgument,
           fmt::format("{} has {} tokens, but the model's context is {}", row_name(file_, r), length, c.context),
           "cut the text, or take a model with a longer context"});
    }
    if (file_.parts[static_cast<std::size_t>(r)] != TokenPart::kTrain) continue;
    if (std::find(row.mask.begin() + (row.mask.empty() ? 0 : 1), row.mask.end(), 1) == row.mask.end()) {
      throw Exception({ErrorCode::kInvalidArgument, fmt::format("{} has no token that is learnt", row_name(file_, r)),
                       "every training row needs an answer after at least one token of prompt"});
    }
  }
  parameters_.flatten();
  adapters_.bind(parameters_);
}

std::span<const std::int32_t> LoraClassifier::prompt(std::int64_t row) const {
  const auto i = static_cast<std::size_t>(row);
  const auto tokens = file_.row(i);
  const auto mask = file_.mask(i);
  const auto first = std::find(mask.begin(), mask.end(), 1) - mask.begin();
  return mask.empty() ? tokens : tokens.first(static_cast<std::size_t>(first));
}

std::span<const std::int32_t> LoraClassifier::answer(std::int64_t row) const {
  const std::int32_t label = file_.labels[static_cast<std::size_t>(row)];
  if (label < 0 || label >= file_.n_labels) return {};
  return file_.label(static_cast<std::size_t>(label));
}

LoraClassifier::Row LoraClassifier::whole(std::int64_t row) const {
  const auto i = static_cast<std::size_t>(row);
  const auto tokens = file_.row(i);
  const auto mask = file_.mask(i);
  Row r{{tokens.begin(), tokens.end()}, {mask.begin(), mask.end()}};
  if (!mask.empty()) return r;
  r.mask.assign(r.tokens.size(), 0);
  const auto reply = answer(row);
  r.tokens.insert(r.tokens.end(), reply.begin(), reply.end());
  r.mask.resize(r.tokens.size(), 1);
  return r;
}

double LoraClassifier::weight(RowSpan rows) const {
  double sum = 0;
  for (const std::int64_t row : rows) {
    const Row r = whole(row);
    for (std::size_t i = 1; i < r.mask.size(); ++i) sum += r.mask[i] != 0 ? 1 : 0;
  }
  return sum;
}

LossSum LoraClassifier::forward_backward(RowSpan rows, const StepContext& context) {
  std::vector<Row> owned;
  std::vector<SequenceView> views;
  for (const std::int64_t row : rows) owned.push_back(whole(row));
  for (const Row& r : owned) views.push_back({r.tokens, r.mask});
  const auto tree = std::make_shared<PackedTree>(pack_tree(views, Sharing::kTree));
  const std::vector<float> weights(tree->targets.size(), static_cast<float>(1.0 / context.denominator));
  const DropoutKey key{context.seed, context.step, context.micro_batch};
  const std::vector<float> losses = decoder_.losses_and_gradients(tree, weights, config_.dropout > 0 ? &key : nullptr);

  LossSum sum;
  sum.weight = static_cast<double>(losses.size());
  sum.tokens = tree->row_tokens;
  sum.computed_tokens = tree->size();
  std::vector<double> of_row(rows.size(), 0);
  for (std::size_t t = 0; t < losses.size(); ++t) of_row[static_cast<std::size_t>(tree->targets[t].row)] += losses[t];
  for (std::size_t r = 0; r < rows.size(); ++r) {
    sum.loss_sum += of_row[r];
    if (!std::isfinite(of_row[r])) sum.bad_rows.push_back(rows[r]);
  }
  return sum;
}

std::vector<float> LoraClassifier::label_scores(RowSpan rows, std::span<const std::span<const std::int32_t>> answers) {
  const std::size_t n = answers.size();
  std::vector<float> scores(rows.size() * n, 0.0f);
  std::int64_t answer_tokens = 0;  // an upper bound of the tree of answers
  for (const auto& a : answers) answer_tokens += static_cast<std::int64_t>(a.size());
  std::size_t begin = 0;
  while (begin < rows.size()) {
    std::size_t end = begin;
    std::int64_t tokens = 0;
    while (end < rows.size() && (end == begin || tokens < kScoreTokens)) {
      tokens += static_cast<std::int64_t>(prompt(rows[end]).size()) + answer_tokens / 2;
      ++end;
    }
    std::vector<Row> owned;
    std::vector<SequenceView> views;
    for (std::size_t r = begin; r < end; ++r) {
      const auto head = prompt(rows[r]);
      for (const auto& a : answers) {
        Row row{{head.begin(), head.end()}, std::vector<std::uint8_t>(head.size(), 0)};
        row.tokens.insert(row.tokens.end(), a.begin(), a.end());
        row.mask.resize(row.tokens.size(), 1);
        owned.push_back(std::move(row));
      }
    }
    for (const Row& r : owned) views.push_back({r.tokens, r.mask});
    const auto tree = std::make_shared<PackedTree>(pack_tree(views, Sharing::kTree));
    const std::vector<float> losses = decoder_.losses(tree);
    for (std::size_t t = 0; t < losses.size(); ++t) {
      scores[begin * n + static_cast<std::size_t>(tree->targets[t].row)] -= losses[t];
    }
    begin = end;
  }
  return scores;
}

Predictions LoraClassifier::predict(RowSpan rows) {
  Predictions p;
  p.labels = file_.n_labels;
  const auto n = static_cast<std::size_t>(p.labels);
  std::vector<std::span<const std::int32_t>> answers;
  for (std::size_t l = 0; l < n; ++l) answers.push_back(file_.label(l));
  const std::vector<float> scores = label_scores(rows, answers);
  p.probabilities.resize(scores.size());
  for (std::size_t r = 0; r < rows.size(); ++r) {
    const float* s = scores.data() + r * n;
    const float top = n == 0 ? 0 : *std::max_element(s, s + n);
    double total = 0;
    for (std::size_t l = 0; l < n; ++l) total += std::exp(static_cast<double>(s[l]) - top);
    for (std::size_t l = 0; l < n; ++l) {
      p.probabilities[r * n + l] = static_cast<float>(std::exp(static_cast<double>(s[l]) - top) / total);
    }
    const std::int32_t label = file_.labels[static_cast<std::size_t>(rows[r])];
    if (label < 0) continue;
    p.loss_sum -= s[label];
    p.weight += static_cast<double>(answers[static_cast<std::size_t>(label)].size());
  }
  return p;
}

Result<std::vector<std::string>> LoraClassifier::save(const std::filesystem::path& dir) {
  TAILOR_TRY(std::vector<std::string> files, write_peft_adapter(dir, *weights_, adapters_, parameters_));
  TAILOR_CHECK(write_gguf_adapter(dir / "adapter.gguf", *weights_, adapters_, parameters_));
  files.emplace_back("adapter.gguf");
  return files;
}

nlohmann::ordered_json LoraClassifier::describe() const {
  const LlamaConfig& c = weights_->config();
  return {{"architecture", "llama"},
          {"layers", c.layers},
          {"hidden", c.hidden},
          {"heads", c.heads},
          {"kv_heads", c.kv_heads},
          {"vocabulary", c.vocab},
          {"base_in_memory", weights_->storage() == WeightStorage::kFloat ? "f32" : "blocks"},
          {"adapter",
           {{"type", "lora"},
            {"r", config_.rank},
            {"alpha", config_.alpha},
            {"dropout", config_.dropout},
            {"target_modules", config_.targets}}}};
}

std::unique_ptr<TrainableModel> make_lora(const ModelInput& input) {
  return std::make_unique<LoraClassifier>(input, WeightStorage::kFloat);
}
std::unique_ptr<TrainableModel> make_qlora(const ModelInput& input) {
  return std::make_unique<LoraClassifier>(input, WeightStorage::kBlocks);
}

}  // namespace tailor::tune::llama
