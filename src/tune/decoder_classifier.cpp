#include "tune/decoder_classifier.h"

#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/bottleneck_file.h"
#include "core/json.h"
#include "tune/answer_scorer.h"
#include "tune/decoder_export.h"
#include "tune/soft_prompt_start.h"
#include "tune/tensor_filters.h"

namespace tailor::tune::decoder {
namespace {

constexpr std::uint64_t kBottleneckStream = 7900;
constexpr std::int64_t kPassTokens = 768;  // about so many of whole rows pass the model at once

std::unique_ptr<DecoderWeights> open_weights(const ModelInput& input, const DecoderOptions& options,
                                             ParameterSet& parameters) {
  return std::move(DecoderWeights::open(input.weights, options.storage, options.trained, &parameters, input.device))
      .value();
}

std::string row_name(const TokenFile& file, std::int64_t row) {
  return fmt::format("row {}", file.row_ids[static_cast<std::size_t>(row)]);
}

}  // namespace

LoraConfig lora_config(const LoraSettings& s) {
  LoraConfig c;
  c.rank = s.r;
  c.alpha = s.alpha;
  c.dropout = s.dropout;
  c.targets = s.target_modules;
  c.rank_stabilised = s.rslora;
  c.b_rate_scale = s.b_rate_scale;
  c.magnitudes = s.dora;
  c.principal = s.pissa;
  return c;
}

DecoderClassifier::DecoderClassifier(const ModelInput& input, DecoderOptions options)
    : file_(input.file),
      job_(input.job),
      options_(std::move(options)),
      weights_(open_weights(input, options_, parameters_)),
      decoder_(*weights_, nullptr) {
  const DecoderConfig& c = weights_->config();
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
    const auto length =
        static_cast<std::int64_t>(row.tokens.size()) + (options_.soft_prompt ? job_.settings.soft_prompt.tokens : 0);
    if (length > c.context) {
      throw Exception(
          {ErrorCode::kInvalidArgument,
           fmt::format("{} has {} tokens, but the model's context is {}", row_name(file_, r), length, c.context),
           "cut the text, or take a model with a longer context"});
    }
    if (file_.parts[static_cast<std::size_t>(r)] != TokenPart::kTrain || distils()) continue;
    if (std::find(row.mask.begin() + (row.mask.empty() ? 0 : 1), row.mask.end(), 1) == row.mask.end()) {
      throw Exception({ErrorCode::kInvalidArgument, fmt::format("{} has no token that is learnt", row_name(file_, r)),
                       "every training row needs an answer after at least one token of prompt"});
    }
  }
  weights_->train_rows(job_.settings.lora.trained_tokens, parameters_).value();
  if (options_.lora) {
    const AdapterStart* start = options_.start ? &*options_.start : nullptr;
    lora_ = LoraAdapters::attach(*weights_, *options_.lora, job_.seed, parameters_, start).value();
    decoder_.set_lora(&*lora_);
  }
  if (options_.scales) adapters_.add_scales(c, parameters_);
  if (options_.bottlenecks) {
    Rng rng(job_.seed, kBottleneckStream);
    adapters_.add_bottlenecks(c, *options_.bottlenecks, job_.settings.adapter, parameters_, rng);
  }
  if (options_.soft_prompt)
    soft_prompt_.emplace(c, *options_.soft_prompt, job_.settings.soft_prompt, job_.seed, soft_start(), parameters_);
  if (parameters_.size() == 0) {
    throw Exception(
        {ErrorCode::kInvalidArgument,
         fmt::format("method {} trains biases, and {} has none", job_.method, weights_->path().filename().string()),
         "layernorm changes as little, lora is the usual one"});
  }
  parameters_.flatten(input.device);
  if (options_.start) {
    const at::NoGradGuard no_grad;
    for (const auto& [tensor, value] : options_.start->whole) parameters_.at(tensor).value.copy_(value);
    for (const auto& [tensor, values] : options_.start->rows)
      parameters_.at(tensor == "output.weight" ? kOutputRows : kWordRows).value.copy_(values);
  }
  weights_->bind(parameters_);
  adapters_.bind(parameters_);
  if (!adapters_.empty()) decoder_.set_adapters(&adapters_);
  if (lora_) {
    lora_->bind(parameters_);
    lora_->refresh(*weights_);
  }
  if (soft_prompt_) {
    soft_prompt_->bind(parameters_);
    decoder_.set_soft_prompt(&*soft_prompt_);
  }
  decoder_.set_checkpointing(job_.settings.activation_checkpointing);
  if (!distils()) states_ = FrozenStates::make(decoder_, *weights_, parameters_, job_, file_);
}

void DecoderClassifier::parameters_changed(double) {
  if (lora_) lora_->refresh(*weights_);
}

SoftPrompt::Start DecoderClassifier::soft_start() {
  const std::vector<std::int32_t> words =
      soft_prompt_words(job_.settings.soft_prompt, file_, weights_->config().vocab, job_.seed);
  if (*options_.soft_prompt == SoftPromptKind::kPrefix) return {{}, decoder_.keys_values(words)};
  return {weights_->embed(words), {}};
}

void DecoderClassifier::add_soft_prompt(Row& row) const {
  if (!soft_prompt_) return;
  std::vector<std::int32_t> ids(static_cast<std::size_t>(soft_prompt_->length()));
  for (std::size_t i = 0; i < ids.size(); ++i)
    ids[i] = static_cast<std::int32_t>(weights_->config().vocab + static_cast<std::int64_t>(i));
  row.tokens.insert(row.tokens.begin(), ids.begin(), ids.end());
  row.mask.insert(row.mask.begin(), ids.size(), 0);
}

std::span<const std::int32_t> DecoderClassifier::prompt(std::int64_t row) const {
  const auto i = static_cast<std::size_t>(row);
  const auto tokens = file_.row(i);
  const auto mask = file_.mask(i);
  const auto first = std::find(mask.begin(), mask.end(), 1) - mask.begin();
  return mask.empty() ? tokens : tokens.first(static_cast<std::size_t>(first));
}

std::span<const std::int32_t> DecoderClassifier::answer(std::int64_t row) const {
  const std::int32_t label = file_.labels[static_cast<std::size_t>(row)];
  if (label < 0 || label >= file_.n_labels) return {};
  return file_.label(static_cast<std::size_t>(label));
}

DecoderClassifier::Row DecoderClassifier::whole(std::int64_t row) const {
  const auto i = static_cast<std::size_t>(row);
  const auto tokens = file_.row(i);
  const auto mask = file_.mask(i);
  Row r{{tokens.begin(), tokens.end()}, {mask.begin(), mask.end()}};
  if (mask.empty() && job_.task == Task::kCausalLm) {
    r.mask.assign(r.tokens.size(), 1);
  } else if (mask.empty()) {
    r.mask.assign(r.tokens.size(), 0);
    const auto reply = answer(row);
    r.tokens.insert(r.tokens.end(), reply.begin(), reply.end());
    r.mask.resize(r.tokens.size(), 1);
  }
  add_soft_prompt(r);
  return r;
}

double DecoderClassifier::weight(RowSpan rows) const {
  if (distils()) return static_cast<double>(rows.size());
  double sum = 0;
  for (const std::int64_t row : rows) {
    const Row r = whole(row);
    for (std::size_t i = 1; i < r.mask.size(); ++i) sum += r.mask[i] != 0 ? 1 : 0;
  }
  return sum;
}

LossSum DecoderClassifier::forward_backward(RowSpan rows, const StepContext& context) {
  if (distils()) return distil(rows, context);
  std::vector<Row> owned;
  std::vector<SequenceView> views;
  for (const std::int64_t row : rows) owned.push_back(whole(row));
  for (const Row& r : owned) views.push_back({r.tokens, r.mask});
  const auto tree = std::make_shared<PackedTree>(pack_tree(views, Sharing::kTree));
  const std::vector<float> weights(tree->targets.size(), static_cast<float>(1.0 / context.denominator));
  const DropoutKey key{context.seed, context.step, context.micro_batch};
  const bool counts = job_.task == Task::kCausalLm;
  std::vector<std::uint8_t> likeliest;
  const std::vector<float> losses = decoder_.losses_and_gradients(
      tree, weights, options_.lora && options_.lora->dropout > 0 ? &key : nullptr,
      states_ ? states_->start(tree, rows) : Decoder::Start(), counts ? &likeliest : nullptr);

  LossSum sum;
  if (counts) sum.likeliest = std::accumulate(likeliest.begin(), likeliest.end(), 0.0);
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

std::vector<float> DecoderClassifier::label_scores(RowSpan rows, std::span<const std::span<const std::int32_t>> answers,
                                                   std::span<const std::int32_t> exact) {
  std::vector<std::vector<std::int32_t>> prompts;
  for (const std::int64_t r : rows) {
    const auto tokens = prompt(r);
    Row row{{tokens.begin(), tokens.end()}, {}};
    add_soft_prompt(row);
    prompts.push_back(std::move(row.tokens));
  }
  return score_answers(decoder_, prompts, answers, exact);
}

/// Losses of whole rows, a pass of some at a time.
Predictions DecoderClassifier::row_losses(RowSpan rows) {
  Predictions p;
  p.likeliest = 0;
  for (std::size_t begin = 0, end = 0; begin < rows.size(); begin = end) {
    std::vector<Row> owned;
    std::int64_t tokens = 0;
    for (end = begin; end < rows.size() && (end == begin || tokens < kPassTokens); ++end) {
      owned.push_back(whole(rows[end]));
      tokens += static_cast<std::int64_t>(owned.back().tokens.size());
    }
    std::vector<SequenceView> views;
    for (const Row& r : owned) views.push_back({r.tokens, r.mask});
    const auto tree = std::make_shared<PackedTree>(pack_tree(views, Sharing::kTree));
    std::vector<std::uint8_t> likeliest;
    const std::vector<float> losses = decoder_.losses(
        tree, states_ ? states_->start(tree, rows.subspan(begin, end - begin)) : Decoder::Start(), &likeliest);
    *p.likeliest += std::accumulate(likeliest.begin(), likeliest.end(), 0.0);
    p.row_losses.resize(end, 0);
    p.row_weights.resize(end, 0);
    for (std::size_t t = 0; t < losses.size(); ++t) {
      const std::size_t row = begin + static_cast<std::size_t>(tree->targets[t].row);
      p.row_losses[row] += losses[t];
      p.row_weights[row] += 1;
    }
  }
  for (std::size_t r = 0; r < rows.size(); ++r) {
    p.loss_sum += p.row_losses[r];
    p.weight += p.row_weights[r];
  }
  return p;
}

Predictions DecoderClassifier::predict(RowSpan rows) {
  if (job_.task == Task::kCausalLm) return row_losses(rows);
  Predictions p;
  p.labels = file_.n_labels;
  const auto n = static_cast<std::size_t>(p.labels);
  std::vector<std::span<const std::int32_t>> answers;
  for (std::size_t l = 0; l < n; ++l) answers.push_back(file_.label(l));
  std::vector<std::int32_t> own;
  for (const std::int64_t r : rows) own.push_back(file_.labels[static_cast<std::size_t>(r)]);
  const std::vector<float> scores = label_scores(rows, answers, own);
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

Result<std::vector<std::string>> DecoderClassifier::save(const std::filesystem::path& dir) {
  if (soft_prompt_) return soft_prompt_->save(dir, weights_->path().filename().string());
  const at::NoGradGuard no_grad;
  std::vector<std::string> files;
  if (lora_) {
    TAILOR_TRY(files, write_peft_adapter(dir, *weights_, *lora_, options_.whole, parameters_));
    if (!merges_whole()) {  // llama.cpp's layout has no place for lengths and tables
      TAILOR_CHECK(write_gguf_adapter(dir / "adapter.gguf", *weights_, *lora_, parameters_));
      files.emplace_back("adapter.gguf");
    }
  }
  if (adapters_.has_bottlenecks()) {
    TAILOR_CHECK(write_bottlenecks(dir / kBottleneckFile, adapters_, job_.settings.adapter.scale, parameters_));
    files.emplace_back(kBottleneckFile);
  }
  if (options_.scales) {
    TAILOR_TRY(const std::vector<std::string> written, write_peft_scales(dir, *weights_, parameters_));
    files.insert(files.end(), written.begin(), written.end());
  }
  if (lora_ ? !merges_whole() : !(options_.scales || options_.trained)) return files;
  TAILOR_CHECK(
      write_changed_weights(dir / kWeightsFile, *weights_, lora_ ? &*lora_ : nullptr, parameters_, job_.method));
  files.emplace_back(kWeightsFile);
  return files;
}

bool DecoderClassifier::merges_whole() const {
  return options_.lora->magnitudes || !options_.whole.empty() || weights_->trained_rows().defined();
}

nlohmann::ordered_json DecoderClassifier::describe() const {
  const DecoderConfig& c = weights_->config();
  Json json{{"architecture", c.architecture},
            {"layers", c.layers},
            {"hidden", c.hidden},
            {"heads", c.heads},
            {"kv_heads", c.kv_heads},
            {"vocabulary", c.vocab},
            {"base_in_memory", weights_->storage() == WeightStorage::kBlocks ? "blocks"
                               : weights_->storage() == WeightStorage::kBf16 ? "bf16"
                                                                             : "f32"}};
  if (options_.lora) {
    json["adapter"] = {{"type", "lora"},
                       {"r", options_.lora->rank},
                       {"alpha", options_.lora->alpha},
                       {"dropout", options_.lora->dropout},
                       {"target_modules", options_.lora->targets}};
    for (const WholeModule& module : options_.whole) json["adapter"]["trained_whole"].push_back(module.tensor);
    if (weights_->trained_rows().defined()) json["adapter"]["trained_tokens"] = weights_->trained_rows().ids;
    if (options_.start) json["adapter"]["began_at"] = job_.adapter.filename().string();
  }
  if (states_) json["frozen_layers_kept"] = states_->layer();
  if (soft_prompt_) json["soft_prompt"] = {{"tokens", soft_prompt_->length()}};
  return json;
}

namespace {

std::unique_ptr<TrainableModel> make(const ModelInput& input, DecoderOptions options) {
  const bool halved = input.job.settings.dtype == Dtype::kBf16 && options.storage == WeightStorage::kFloat;
  if (halved) options.storage = WeightStorage::kBf16;
  return std::make_unique<DecoderClassifier>(input, std::move(options));
}

DecoderOptions lora_options(const ModelInput& input) {
  DecoderOptions options;
  const LoraSettings& settings = input.job.settings.lora;
  options.lora = lora_config(settings);
  const DecoderConfig config = DecoderConfig::read(input.weights).value();
  const bool tied = !input.weights.has("output.weight");
  if (!input.job.adapter.empty()) {
    options.start = decoder_start(input.job, input.weights, config, tied).value();
  }
  options.whole = whole_modules(config, tied, settings.modules_to_save).value();
  for (const auto& [tensor, unused] : options.start ? options.start->whole : decltype(AdapterStart::whole)()) {
    if (std::any_of(options.whole.begin(), options.whole.end(),
                    [&](const WholeModule& m) { return m.tensor == tensor; }))
      continue;
    throw Exception({ErrorCode::kInvalidArgument,
                     fmt::format("{}: it trained {} whole, which lora.modules_to_save does not name",
                                 input.job.adapter.string(), tensor),
                     "leave modules_to_save out: the adapter's own are taken"});
  }
  if (!options.whole.empty()) {
    options.trained = [whole = options.whole](std::string_view tensor) {
      return std::any_of(whole.begin(), whole.end(), [&](const WholeModule& m) { return m.tensor == tensor; });
    };
  }
  return options;
}

std::unique_ptr<TrainableModel> make_bottlenecks(const ModelInput& input, AdapterPlace place) {
  DecoderOptions options;
  options.bottlenecks = place;
  if (place == AdapterPlace::kHoulsby) options.trained = is_norm_tensor;
  return make(input, std::move(options));
}

}  // namespace

std::unique_ptr<TrainableModel> make_full(const ModelInput& input) {
  DecoderOptions options;
  options.trained = [](std::string_view) { return true; };
  return make(input, std::move(options));
}
std::unique_ptr<TrainableModel> make_upper_layers(const ModelInput& input) {
  DecoderOptions options;
  options.trained = upper_layers_filter(DecoderConfig::read(input.weights).value().layers, input.job.settings);
  return make(input, std::move(options));
}
std::unique_ptr<TrainableModel> make_bitfit(const ModelInput& input) {
  DecoderOptions options;
  options.trained = [](std::string_view tensor) { return tensor.ends_with(".bias"); };
  return make(input, std::move(options));
}
std::unique_ptr<TrainableModel> make_layernorm(const ModelInput& input) {
  DecoderOptions options;
  options.trained = is_norm_tensor;
  return make(input, std::move(options));
}
std::unique_ptr<TrainableModel> make_lora(const ModelInput& input) {
  return make(input, lora_options(input));
}
std::unique_ptr<TrainableModel> make_qlora(const ModelInput& input) {
  DecoderOptions options = lora_options(input);
  options.storage = WeightStorage::kBlocks;
  return make(input, std::move(options));
}
std::unique_ptr<TrainableModel> make_ia3(const ModelInput& input) {
  DecoderOptions options;
  options.scales = true;
  return make(input, std::move(options));
}
std::unique_ptr<TrainableModel> make_houlsby(const ModelInput& input) {
  return make_bottlenecks(input, AdapterPlace::kHoulsby);
}
std::unique_ptr<TrainableModel> make_pfeiffer(const ModelInput& input) {
  return make_bottlenecks(input, AdapterPlace::kPfeiffer);
}
std::unique_ptr<TrainableModel> make_parallel(const ModelInput& input) {
  return make_bottlenecks(input, AdapterPlace::kParallel);
}

namespace {

std::unique_ptr<TrainableModel> make_soft(const ModelInput& input, SoftPromptKind kind) {
  DecoderOptions options;
  options.soft_prompt = kind;
  return make(input, std::move(options));
}

}  // namespace

std::unique_ptr<TrainableModel> make_prompt_tuning(const ModelInput& input) {
  return make_soft(input, SoftPromptKind::kPrompt);
}
std::unique_ptr<TrainableModel> make_p_tuning(const ModelInput& input) {
  return make_soft(input, SoftPromptKind::kEncoded);
}
std::unique_ptr<TrainableModel> make_prefix_tuning(const ModelInput& input) {
  return make_soft(input, SoftPromptKind::kPrefix);
}

}  // namespace tailor::tune::decoder
