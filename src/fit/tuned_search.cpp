#include "fit/tuned_search.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace tailor {
namespace {

constexpr std::string_view kLowRank = "low-rank updates of linear layers, mergeable and removable";
constexpr std::string_view kBottleneck = "small networks inside every layer, removable";
constexpr std::string_view kFew = "a few numbers of every layer";
constexpr std::string_view kEveryWeight = "every weight of the model";

constexpr double kHeadRate = 2e-3;
constexpr int kSteps = 1200, kEpochs = 20, kDecoderEpochs = 2;

// Costs in the rows, of a forward pass (2 a parameter and token) and what is computed backward: every weight's gradient
// 6; a frozen trunk with small updates 4.4; small numbers alone 4.2. A contrastive row brings up to two companions.
std::vector<TunedSearch> make_rows() {
  using enum ModelKind;
  std::vector<TunedSearch> rows{
      {.candidate = "head",
       .method = "head",
       .kind = kEncoder,
       .title = "Output layer only",
       .changes = "one linear layer; the base model is unchanged",
       .usual = true,
       .priority = 4,
       .simplicity = 4,
       .rates = {1e-3, 3e-3},
       .usual_rate = 1e-3,
       .head_rate = 0,
       .wanted_steps = 4000,
       .most_epochs = 20,
       .flops = 2,
       .memory = 6},
      {.candidate = "full",
       .method = "full",
       .kind = kEncoder,
       .title = "Full fine-tuning with a classification head",
       .changes = kEveryWeight,
       .usual = true,
       .priority = 5,
       .simplicity = 6,
       .rates = {1e-4, 2e-4, 5e-4},
       .usual_rate = 2e-4,
       .head_rate = kHeadRate,
       .wanted_steps = kSteps,
       .most_epochs = kEpochs,
       .flops = 6,
       .memory = 16},
      {.candidate = "lora",
       .method = "lora",
       .kind = kEncoder,
       .title = "LoRA with a classification head",
       .changes = kLowRank,
       .usual = true,
       .priority = 6,
       .simplicity = 5,
       .rates = {5e-4, 1e-3, 2.5e-3},
       .usual_rate = 1e-3,
       .head_rate = kHeadRate,
       .wanted_steps = kSteps,
       .most_epochs = kEpochs,
       .flops = 4.4,
       .memory = 6},
      {.candidate = "lora-decoder",
       .method = "lora",
       .kind = kDecoder,
       .title = "LoRA of the decoder on answer tokens",
       .changes = kLowRank,
       .usual = true,
       .priority = 11,
       .simplicity = 11,
       .rates = {5e-4, 1e-3, 2e-3},
       .usual_rate = 1e-3,
       .head_rate = 0,
       .wanted_steps = 0,
       .most_epochs = kDecoderEpochs,
       .flops = 4.4,
       .memory = 4.6},
  };
  int rank = 12;  // of the further ones: the order below, in which they also run
  const auto further = [&](std::string_view candidate, std::string_view method, std::string_view title,
                           std::string_view changes, std::vector<double> rates, double flops, double memory) {
    TunedSearch& row = rows.emplace_back();
    row.candidate = candidate;
    row.method = method;
    row.title = title;
    row.changes = changes;
    row.priority = row.simplicity = rank++;
    row.usual_rate = rates[1];
    row.rates = std::move(rates);
    row.flops = flops;
    row.memory = memory;
  };
  const auto encoder = [&](std::string_view method, std::string_view title, std::string_view changes,
                           std::vector<double> rates, double flops, double memory) {
    further(method, method, title, changes, std::move(rates), flops, memory);
    rows.back().kind = kEncoder;
    rows.back().head_rate = kHeadRate;
    rows.back().wanted_steps = kSteps;
    rows.back().most_epochs = kEpochs;
  };
  encoder("contrastive", "Contrastive tuning with a classification head", kEveryWeight, {5e-5, 1e-4, 2e-4}, 18, 16);
  rows.back().head_rate = 1e-3;
  rows.back().wanted_steps = 400;
  rows.back().most_epochs = 10;
  encoder("upper-layers", "Upper layers with a classification head", "the uppermost layers of the model",
          {1e-4, 2e-4, 5e-4}, 3.6, 12);
  encoder("dora", "DoRA with a classification head", kLowRank, {5e-4, 1e-3, 2.5e-3}, 5.4, 7);
  encoder("lora-plus", "LoRA+ with a classification head", kLowRank, {1.25e-4, 2.5e-4, 5e-4}, 4.4, 6);
  encoder("rslora", "rsLoRA with a classification head", kLowRank, {5e-4, 1e-3, 2.5e-3}, 4.4, 6);
  encoder("pissa", "PiSSA with a classification head", kLowRank, {1e-4, 2e-4, 5e-4}, 4.4, 7);
  encoder("adapter-houlsby", "Houlsby adapters with a classification head", kBottleneck, {1e-3, 2e-3, 4e-3}, 4.6, 6);
  encoder("adapter-pfeiffer", "Pfeiffer adapters with a classification head", kBottleneck, {1e-3, 2e-3, 4e-3}, 4.4, 6);
  encoder("adapter-parallel", "Parallel adapters with a classification head", kBottleneck, {5e-4, 1e-3, 2e-3}, 4.4, 6);
  encoder("bitfit", "BitFit with a classification head", "biases alone", {2e-3, 5e-3, 1e-2}, 4.2, 6);
  encoder("ia3", "IA3 with a classification head", kFew, {2e-3, 5e-3, 1e-2}, 4.2, 6);
  encoder("layernorm", "Normalisation layers with a classification head", kFew, {2e-3, 5e-3, 1e-2}, 4.2, 6);

  const auto decoder = [&](std::string_view candidate, std::string_view method, std::string_view title,
                           std::string_view changes, std::vector<double> rates, double flops, double memory,
                           double answer_cost = 1) {
    further(candidate, method, title, changes, std::move(rates), flops, memory);
    rows.back().kind = kDecoder;
    rows.back().most_epochs = kDecoderEpochs;
    rows.back().answer_cost = answer_cost;
  };
  constexpr double kOtherServer = 10;  // tailor-tune answers in f32
  decoder("qlora", "qlora", "LoRA of the decoder in its quantised blocks", kLowRank, {5e-4, 1e-3, 2e-3}, 4.8, 2.5);
  decoder("dora-decoder", "dora", "DoRA of the decoder", kLowRank, {5e-4, 1e-3, 2e-3}, 5.4, 5.5);
  decoder("lora-plus-decoder", "lora-plus", "LoRA+ of the decoder", kLowRank, {1.25e-4, 2.5e-4, 5e-4}, 4.4, 4.6);
  decoder("rslora-decoder", "rslora", "rsLoRA of the decoder", kLowRank, {5e-4, 1e-3, 2e-3}, 4.4, 4.6);
  decoder("pissa-decoder", "pissa", "PiSSA of the decoder", kLowRank, {1e-4, 2e-4, 4e-4}, 4.4, 5.5);
  decoder("upper-layers-decoder", "upper-layers", "Upper layers of the decoder", "the uppermost layers of the model",
          {5e-5, 1e-4, 2e-4}, 2.6, 6);
  decoder("prompt-tuning", "prompt-tuning", "Prompt tuning", "vectors before the prompt; the base model is unchanged",
          {1e-2, 3e-2, 9e-2}, 4.2, 4.5);
  decoder("prefix-tuning", "prefix-tuning", "Prefix tuning",
          "keys and values before the prompt; the base model is unchanged", {5e-3, 1e-2, 3e-2}, 4.2, 4.5);
  decoder("p-tuning", "p-tuning", "P-tuning", "vectors before the prompt; the base model is unchanged",
          {5e-4, 1e-3, 3e-3}, 4.2, 4.5);
  decoder("ia3-decoder", "ia3", "IA3 of the decoder", kFew, {5e-3, 1e-2, 3e-2}, 4.2, 4.5);
  decoder("layernorm-decoder", "layernorm", "Normalisation layers of the decoder", kFew, {2e-3, 5e-3, 1e-2}, 4.2, 4.5);
  decoder("bitfit-decoder", "bitfit", "BitFit of the decoder", "biases alone", {2e-3, 5e-3, 1e-2}, 4.2, 4.5);
  decoder("full-decoder", "full", "Full fine-tuning of the decoder", kEveryWeight, {2e-5, 5e-5, 1e-4}, 6, 16);
  decoder("adapter-pfeiffer-decoder", "adapter-pfeiffer", "Pfeiffer adapters of the decoder", kBottleneck,
          {5e-4, 1e-3, 2e-3}, 4.4, 4.6, kOtherServer);
  decoder("adapter-parallel-decoder", "adapter-parallel", "Parallel adapters of the decoder", kBottleneck,
          {5e-4, 1e-3, 2e-3}, 4.4, 4.6, kOtherServer);
  decoder("adapter-houlsby-decoder", "adapter-houlsby", "Houlsby adapters of the decoder", kBottleneck,
          {5e-4, 1e-3, 2e-3}, 4.6, 4.6, kOtherServer);
  return rows;
}

}  // namespace

const std::vector<TunedSearch>& tuned_searches() {
  static const std::vector<TunedSearch> kRows = make_rows();
  return kRows;
}

const TunedSearch* find_tuned_search(std::string_view candidate) {
  const auto& rows = tuned_searches();
  const auto it =
      std::find_if(rows.begin(), rows.end(), [&](const TunedSearch& r) { return r.candidate == candidate; });
  return it == rows.end() ? nullptr : &*it;
}

std::string unsuited(const TunedSearch& search, const ModelInfo& model) {
  static constexpr std::array<std::string_view, 4> kBiased = {"qwen2", "gpt2", "gptneox", "bloom"};
  static constexpr std::array<std::string_view, 3> kWhole = {"f32", "f16", "bf16"};
  if (search.kind == ModelKind::kDecoder && search.method == "bitfit" &&
      std::find(kBiased.begin(), kBiased.end(), model.architecture) == kBiased.end())
    return fmt::format("{} has no biases to tune", model.id);
  if (search.kind == ModelKind::kEncoder && search.method == "bitfit" && model.architecture == "modern-bert")
    return fmt::format("{} has no biases to tune", model.id);
  if (search.method == "qlora" && std::find(kWhole.begin(), kWhole.end(), model.file_type) != kWhole.end())
    return fmt::format("the weights of {} are {}: there are no quantised blocks to keep", model.id, model.file_type);
  return "";
}

}  // namespace tailor
