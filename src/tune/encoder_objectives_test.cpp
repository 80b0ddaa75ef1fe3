// Parity of encoder families (BERT, DistilBERT, RoBERTa, ModernBERT) and objectives (labels, a number, several labels,
// tokens) with transformers and PEFT: tests/golden/encoder_objectives_golden.py.

#include <gtest/gtest.h>

#include <cmath>
#include <regex>
#include <set>

#include "tune/data_order.h"
#include "tune/encoder_family_model.h"
#include "tune/encoder_test_model.h"
#include "tune/export.h"
#include "tune/job.h"
#include "tune/kernels.h"
#include "tune/method_parity.h"
#include "tune/methods.h"
#include "tune/objective.h"

namespace tailor::tune {
namespace {

constexpr std::size_t kTrained = 40, kTested = 10, kLabelSets = 4;
constexpr std::int32_t kTags = 5;

/// Labels of tokens: the first of a row is not answered, the second always is.
void add_token_labels(TokenFile& file) {
  Rng tags(8, 0), asked(9, 0);
  std::vector<std::vector<std::int32_t>> rows;
  for (std::size_t r = 0; r < kTrained; ++r) {
    const std::size_t n = file.row(r).size();
    std::vector<std::int32_t>& row = rows.emplace_back();
    for (std::size_t i = 0; i < n; ++i) row.push_back(static_cast<std::int32_t>(tags.below(kTags)));
    for (std::size_t i = 0; i < n; ++i) {
      const bool keep = asked.below(3) != 0;
      if (i != 1 && (i == 0 || !keep)) row[i] = kNotAnswered;
    }
  }
  for (std::size_t r = 0; r < file.rows(); ++r) {
    const auto& row = rows[r < kTrained ? r : 2 * kTrained - 1 - r];
    file.token_labels.insert(file.token_labels.end(), row.begin(), row.end());
  }
  file.labels.assign(file.rows(), -1);
  file.n_labels = kTags;
  file.iob2 = true;
}

/// The rows of tiny_rows(), every id one higher, with what this case learns.
TokenFile rows_of_case(const Json& golden) {
  TokenFile file = testing::tiny_rows(0, static_cast<int>(kTested));
  for (std::int32_t& id : file.tokens) ++id;
  if (golden.at("pairs").get<bool>()) {
    for (std::size_t i = 0; i < file.rows(); ++i) {
      const std::size_t n = file.row(i).size();
      for (std::size_t t = 0; t < n; ++t) file.types.push_back(2 * t >= n ? 1 : 0);
    }
  }
  const std::string task = golden.at("task");
  if (task == "span-extraction") {
    Rng rng(10, 0);
    for (std::size_t r = 0; r < kTrained; ++r) {
      const auto n = static_cast<std::uint64_t>(file.row(r).size());
      const auto a = static_cast<std::int32_t>(rng.below(n)), b = static_cast<std::int32_t>(rng.below(n));
      file.spans.insert(file.spans.end(), {std::min(a, b), std::max(a, b)});
    }
    for (std::size_t i = 0; i < kTested; ++i) {
      const std::size_t from = 2 * (kTrained - 1 - i);
      file.spans.insert(file.spans.end(), {file.spans[from], file.spans[from + 1]});
    }
    file.labels.assign(file.rows(), -1);
    file.n_labels = 0;
    return file;
  }
  if (task == "sequence-classification") return file;
  if (task == "token-classification") {
    add_token_labels(file);
    return file;
  }
  std::vector<float> wanted;
  std::size_t width = 1;
  if (task == "regression") {
    Rng rng(5, 0);
    for (std::size_t i = 0; i < kTrained; ++i) wanted.push_back(static_cast<float>(rng.normal()));
    file.n_labels = 0;
  } else {
    Rng rng(6, 0);
    width = kLabelSets;
    for (std::size_t i = 0; i < kTrained * width; ++i) wanted.push_back(static_cast<float>(rng.below(2)));
    file.n_labels = kLabelSets;
  }
  file.labels.assign(file.rows(), -1);
  file.targets = wanted;
  for (std::size_t i = 0; i < kTested; ++i) {
    const auto from = wanted.end() - static_cast<std::ptrdiff_t>((i + 1) * width);
    file.targets.insert(file.targets.end(), from, from + static_cast<std::ptrdiff_t>(width));
  }
  return file;
}

class EncoderObjectives : public ::testing::TestWithParam<std::tuple<const char*, bool>> {
 protected:
  std::string name() const { return std::get<0>(GetParam()); }
  const Json& golden() const { return all_.at(name()); }
  std::string family() const { return golden().at("family"); }
  /// A directory or a GGUF file, as the test's parameter says.
  std::filesystem::path write_base(const std::filesystem::path& dir) const {
    if (!std::get<1>(GetParam())) {
      testing::write_family_directory(family(), dir);
      return dir;
    }
    testing::write_family_gguf(family(), dir / "base.gguf");
    return dir / "base.gguf";
  }
  Job job(const std::filesystem::path& dir) const {
    const Json value = {{"format", "tailor-tune-job"},
                        {"version", 1},
                        {"task", golden().at("task")},
                        {"method", golden().at("method")},
                        {"base", "b"},
                        {"tokens", "t"},
                        {"out", "out"},
                        {"seed", testing::kSeed},
                        {"settings", golden().at("settings")}};
    return parse_job(value, "job.json", dir).value();
  }
  void compare_with_transformers() const;
  const Json all_ = read_json(testing::golden("encoder_objectives.json")).value();
  const TemporaryDirectory dir_;
};

void EncoderObjectives::compare_with_transformers() const {
  const BaseWeights weights = BaseWeights::open(write_base(dir_.path())).value();
  const TokenFile file = rows_of_case(golden());
  const Job job = this->job(dir_.path());
  const auto model = make_model({job, weights, file, {}}).value();

  // Scores: of labels up to what softmax takes away, a constant a row.
  const Predictions seen = model->predict(rows_of(file, TokenPart::kTest));
  auto expected = golden().at("scores").get<std::vector<double>>();
  std::vector<double> scores(seen.values.begin(), seen.values.end());
  const bool labels = job.task != Task::kMultiLabel;
  for (std::size_t i = 0; i < seen.probabilities.size(); ++i) {
    const double p = seen.probabilities[i];
    const std::size_t first = i - i % static_cast<std::size_t>(seen.labels);
    scores.push_back(labels ? std::log(p / seen.probabilities[first]) : std::log(p / (1 - p)));
  }
  if (labels && seen.labels > 0) {
    for (std::size_t i = expected.size(); i-- > 0;)
      expected[i] -= expected[i - i % static_cast<std::size_t>(seen.labels)];
  }
  testing::expect_close(scores, expected, 1e-5, "scores");

  DataOrder order(rows_of(file, TokenPart::kTrain), job.settings.batch_size, job.seed);
  const RowSpan batch = order.batch(0);
  model->forward_backward(batch, {.denominator = model->weight(batch), .seed = job.seed, .step = 0});
  const auto gradients = testing::read_values(testing::golden("encoder_objectives.safetensors"), name() + "/");
  std::size_t compared = 0;
  for (const auto& [hf, golden_grad] : gradients) {
    std::string ours = hf;
    if (hf.starts_with("blk_")) {  // the script's own modules: "blk_0_adapter_ffn.down.weight"
      ours = "blk." + hf.substr(4);
      ours[ours.find('_')] = '.';
    } else if (const auto adapter = hf.find(".lora_"); adapter != std::string::npos) {
      ours = gguf_name_of_encoder(hf.substr(0, adapter) + ".weight", family()).value();
      ours.replace(ours.rfind(".weight"), 7, hf[adapter + 6] == 'A' ? ".lora_a" : ".lora_b");
    } else if (!hf.starts_with("head.")) {
      ours = gguf_name_of_encoder(hf, family()).value();
    }
    const at::Tensor grad = model->parameters().at(ours).grad;
    const float* values = grad.data_ptr<float>();
    std::vector<double> want(golden_grad.numbers.begin(), golden_grad.numbers.end());
    std::vector<double> got;
    if (ours == "token_embd.weight" || ours == "position_embd.weight" || ours == "token_types.weight") {
      // Our tables hold the rows in use; the gradient of the others is 0.
      const std::size_t d = testing::kFamilyWidth;
      std::size_t row = 0;
      for (std::int64_t r = 0; r < golden_grad.shape[0]; ++r) {
        const std::int64_t place = r - testing::padding_rows(family());
        const bool used = ours == "token_embd.weight"
                              ? std::find(file.tokens.begin(), file.tokens.end(), r) != file.tokens.end()
                          : ours == "position_embd.weight" ? place >= 0 && place < grad.size(0)
                                                           : r < grad.size(0);
        for (std::size_t c = 0; c < d; ++c) got.push_back(used ? values[row * d + c] : 0);
        row += used ? 1 : 0;
      }
    } else {
      got.assign(values, values + grad.numel());
    }
    testing::expect_close(got, want, 1e-5, hf);
    ++compared;
  }
  EXPECT_EQ(compared, model->parameters().size());  // nothing else is trained, DistilBERT's token types neither
}

TEST_P(EncoderObjectives, ScoresAndGradientsAreThoseOfTransformers) {
  compare_with_transformers();
}
TEST_P(EncoderObjectives, ScoresAndGradientsAreThoseOfTransformersInPlainAten) {
  const KernelsGuard portable(Kernels::kPortable);
  compare_with_transformers();
}

TEST_P(EncoderObjectives, TrainsAsTransformers) {
  const testing::MethodRun run =
      testing::train_as(golden(), golden().at("method"), golden().at("task").get<std::string>().c_str(), testing::kSeed,
                        write_base(dir_.path()), rows_of_case(golden()), dir_.path());
  testing::expect_close(run.result.at("losses").get<std::vector<double>>(),
                        golden().at("losses").get<std::vector<double>>(), 5e-5, "losses");
  testing::expect_close(run.gradient_norms, golden().at("gradient_norms").get<std::vector<double>>(), 2e-4, "norms");
  auto seen = std::vector<double>(run.probabilities.begin(), run.probabilities.end());
  auto answers = golden().at("probabilities").get<std::vector<double>>();
  if (golden().at("task") == "span-extraction") {
    // A softmax over a row does not see the head's bias: its gradient is rounding alone, which AdamW makes whole steps
    // of.
    const TokenFile file = rows_of_case(golden());
    std::size_t first = 0;
    for (const std::int64_t r : rows_of(file, TokenPart::kTest)) {
      const std::size_t end = first + 2 * file.row(static_cast<std::size_t>(r)).size();
      for (auto* scores : {&seen, &answers}) {
        const double base[2] = {(*scores)[first], (*scores)[first + 1]};
        for (std::size_t i = first; i < end; ++i) (*scores)[i] -= base[i % 2];
      }
      first = end;
    }
  }
  testing::expect_close(seen, answers, 1e-4, "answers");
  if (golden().at("method") != "lora") return;
  const std::string targets = run.adapter_config.at("target_modules");
  const std::string layers = family() == "distilbert"   ? "transformer.layer."
                             : family() == "modernbert" ? "layers."
                                                        : "encoder.layer.";
  EXPECT_NE(targets.find(layers.substr(0, layers.find('.'))), std::string::npos) << targets;
  // As PEFT reads it, it names the modules that have tensors, and no others.
  std::set<std::string> adapted;
  for (const auto& [tensor, value] : run.trained) {
    const std::size_t end = tensor.find(".lora_A.weight");
    if (end != std::string::npos) adapted.insert(tensor.substr(0, end).substr(std::string("base_model.model.").size()));
  }
  for (std::int64_t l = 0; l < testing::kModernLayers; ++l) {
    for (const std::string& module : encoder_linear_modules(family())) {
      const std::string path = hf_module_of_encoder(fmt::format("blk.{}.{}", l, module), family()).value();
      const bool in_model = family() == "modernbert" || l < testing::kFamilyLayers;
      if (in_model) {
        EXPECT_EQ(std::regex_match(path, std::regex(targets)), adapted.contains(path)) << path;
      }
    }
  }
  for (const auto& [tensor, value] : run.trained) {
    if (tensor.starts_with("head.")) continue;
    EXPECT_TRUE(tensor.starts_with("base_model.model." + layers)) << tensor;
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, EncoderObjectives,
                         ::testing::Combine(::testing::Values("bert-pairs", "distilbert-full", "distilbert-lora",
                                                              "roberta-full", "roberta-lora", "regression",
                                                              "multi-label", "tokens", "tokens-roberta-lora", "spans",
                                                              "modernbert-full", "modernbert-lora", "modernbert-ia3",
                                                              "modernbert-houlsby", "modernbert-parallel", "pattern"),
                                            ::testing::Bool()),
                         [](const auto& test) {
                           std::string name = std::get<0>(test.param);
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name + (std::get<1>(test.param) ? "_gguf" : "_directory");
                         });

class EncoderExport : public ::testing::TestWithParam<const char*> {};

// Hugging Face -> GGUF -> Hugging Face gives back every value; RoBERTa's rows of padding are not in a GGUF file.
TEST_P(EncoderExport, IsTheDirectoryThatWasImported) {
  const std::string family = GetParam();
  const TemporaryDirectory dir;
  testing::write_family_gguf(family, dir.path() / "base.gguf");
  const BaseWeights base = BaseWeights::open(dir.path() / "base.gguf").value();
  write_hugging_face(dir.path(), base, [&](const auto& visit) {
    for (const std::string& name : base.names()) visit({name, base.load(name)});
  }).value();
  const auto seen = testing::read_values(dir.path() / "huggingface" / "model.safetensors");
  const auto tensors = testing::family_tensors(family);
  EXPECT_EQ(seen.size(), tensors.size());
  for (const testing::FamilyTensor& t : tensors) {
    ASSERT_TRUE(seen.contains(t.name)) << t.name;
    EXPECT_EQ(seen.at(t.name).shape, t.shape) << t.name;
    const bool places = t.name == "embeddings.position_embeddings.weight";
    const auto skipped =
        static_cast<std::ptrdiff_t>(places ? testing::padding_rows(family) * testing::kFamilyWidth : 0);
    EXPECT_TRUE(std::equal(t.values.begin() + skipped, t.values.end(), seen.at(t.name).numbers.begin() + skipped))
        << t.name;
  }
  // What is written is read again as the same model.
  const BaseWeights again = BaseWeights::open(dir.path() / "huggingface").value();
  for (const char* name : {"block_count", "embedding_length", "context_length", "attention.layer_norm_epsilon"}) {
    const std::string key = base.architecture() + "." + name;
    EXPECT_NEAR(again.need_number(key), base.need_number(key), 1e-9) << key;
  }
  EXPECT_EQ(again.text(kSourceModelType), family);
  if (family != "modernbert") return;
  for (const char* key : {"modern-bert.attention.sliding_window", "modern-bert.attention.sliding_window_pattern",
                          "modern-bert.rope.freq_base", "modern-bert.rope.freq_base_swa"}) {
    EXPECT_EQ(again.need_number(key), base.need_number(key)) << key;
  }
}

INSTANTIATE_TEST_SUITE_P(Families, EncoderExport, ::testing::Values("bert", "distilbert", "roberta", "modernbert"));

TEST(EncoderExport, TrainingWritesTheTunedDirectory) {
  const TemporaryDirectory dir;
  testing::write_family_directory("distilbert", dir.path());
  write_token_file(dir.path() / "tokens.safetensors", testing::tiny_rows()).value();
  const Json value = {{"format", "tailor-tune-job"},
                      {"version", 1},
                      {"method", "lora"},
                      {"base", "."},
                      {"tokens", "tokens.safetensors"},
                      {"out", "out"},
                      {"export_hugging_face", true},
                      {"export_merged", true},
                      {"settings", {{"max_steps", 2}, {"lora", {{"r", 2}}}}}};
  const Job job = parse_job(value, "job.json", dir.path()).value();
  run_job(
      job, [](const Json&) {}, CancelToken(), std::chrono::steady_clock::now())
      .value();
  const auto whole = testing::read_values(job.out / "huggingface" / "model.safetensors");
  const auto merged = testing::read_values(job.out / "weights.safetensors");
  EXPECT_EQ(whole.at("transformer.layer.1.ffn.lin2.weight").numbers, merged.at("blk.1.ffn_down.weight").numbers);
  EXPECT_FALSE(whole.contains("embeddings.token_type_embeddings.weight"));
}

// Failure paths.

Status parse(Json changes) {
  Json value = {{"format", "tailor-tune-job"}, {"version", 1}, {"base", "b"}, {"tokens", "t"}, {"out", "o"}};
  value.update(changes);
  const auto job = parse_job(value, "job.json", ".");
  return job ? Status() : Status(job.error());
}
void expect_refused(const Status& status, const std::string& part) {
  ASSERT_FALSE(status.has_value()) << part;
  EXPECT_NE(status.error().message.find(part), std::string::npos) << status.error().message;
}

TEST(EncoderObjectivesJob, WhatMakesNoSenseIsRefused) {
  expect_refused(parse({{"task", "regression"}, {"metric", "accuracy"}}), "regression has no metric accuracy");
  expect_refused(parse({{"task", "sequence-classification"}, {"metric", "micro_f1"}}), "no metric micro_f1");
  expect_refused(parse({{"task", "multi-label"}, {"method", "contrastive"}}), "for one label a row");
  expect_refused(parse({{"task", "regression"}, {"settings", {{"label_smoothing", 0.1}}}}),
                 "label_smoothing means nothing");
  expect_refused(parse({{"method", "head"}, {"export_hugging_face", true}}), "export_hugging_face");
  expect_refused(parse({{"metric", "entity_f1"}}), "no metric entity_f1");
  expect_refused(parse({{"task", "token-classification"}, {"method", "distill"}}), "for one label a row");
  expect_refused(parse({{"task", "token-classification"}, {"settings", {{"pooling", "cls"}}}}),
                 "pooling means nothing");
}

TEST(EncoderObjectivesJob, RowsMustHoldWhatTheTaskLearns) {
  Job job;
  job.tokens = "tokens.safetensors";
  TokenFile file = testing::tiny_rows();
  job.task = Task::kRegression;
  expect_refused(check_targets(job, file), "0 targets a row, regression needs 1");
  job.task = Task::kMultiLabel;
  file.targets.assign(file.rows(), 1.0f);
  expect_refused(check_targets(job, file), "multi-label needs one target a label");
  file.targets.assign(file.rows() * testing::kLabels, 2.0f);
  expect_refused(check_targets(job, file), "outside 0 to 1");
  job.task = Task::kTokenClassification;
  job.metric = Metric::kEntityF1;
  expect_refused(check_targets(job, file), "needs token_labels");
  file = testing::tiny_rows();
  file.token_labels.assign(file.tokens.size(), 0);
  expect_refused(check_targets(job, file), "no metric entity_f1");
  job.metric = Metric::kAccuracy;
  EXPECT_TRUE(check_targets(job, file).has_value());
  file.token_labels[0] = -1;
  expect_refused(check_targets(job, file), "has a token without a label");
  file.token_labels.assign(file.tokens.size(), kNotAnswered);
  expect_refused(check_targets(job, file), "no token that is answered");
}

TEST(EncoderFamilies, AdapterModulesHaveTheFamilysNames) {
  const auto found = [](const std::vector<std::string>& names, std::string_view family) {
    return resolve_lora_targets(names, family, 1);
  };
  using Names = std::vector<std::string>;
  EXPECT_EQ(found({"q_lin", "lin1"}, "distilbert"), (Names{"blk.0.attn_q", "blk.0.ffn_up"}));
  EXPECT_EQ(found({"value"}, "roberta"), (Names{"blk.0.attn_v"}));
  EXPECT_EQ(found({"Wo"}, "modernbert"), (Names{"blk.0.attn_output", "blk.0.ffn_down"}));
  EXPECT_EQ(found({"mlp.Wo", "Wqkv"}, "modernbert"), (Names{"blk.0.attn_qkv", "blk.0.ffn_down"}));
  EXPECT_EQ(found({"all-linear"}, "modernbert").size(), 4u);
  try {
    found({"query"}, "distilbert");
    FAIL();
  } catch (const Exception& e) {
    EXPECT_NE(e.error().hint.find("q_lin, k_lin, v_lin, out_lin, lin1, lin2"), std::string::npos) << e.error().hint;
  }
}

// What PEFT itself adapts of the tiny models for the same target_modules.
TEST(EncoderFamilies, RegularExpressionsNameWhatTheyNameInPeft) {
  const Json cases = read_json(testing::golden("encoder_targets.json")).value();
  for (const auto& [family, patterns] : cases.items()) {
    const std::int64_t layers = family == "modernbert" ? testing::kModernLayers : testing::kFamilyLayers;
    for (const auto& [pattern, modules] : patterns.items()) {
      std::set<std::string> seen;
      for (const std::string& name : resolve_lora_targets({pattern}, family, layers))
        seen.insert(hf_module_of_encoder(name, family).value());
      EXPECT_EQ(seen, modules.get<std::set<std::string>>()) << family << " " << pattern;
    }
  }
}

TEST(EncoderFamilies, ModernBertHasNoBiasesToTrain) {
  const TemporaryDirectory dir;
  testing::write_family_directory("modernbert", dir.path());
  const BaseWeights weights = BaseWeights::open(dir.path()).value();
  const TokenFile file = testing::tiny_rows();
  Job job;
  job.method = "bitfit";
  const auto model = make_model({job, weights, file, {}});
  ASSERT_FALSE(model.has_value());
  EXPECT_EQ(model.error().message, "method 'bitfit' trains biases, and ModernBERT has none");
}

TEST(EncoderFamilies, ASecondTextNeedsASecondType) {
  const TemporaryDirectory dir;
  testing::write_family_directory("roberta", dir.path());
  const BaseWeights weights = BaseWeights::open(dir.path()).value();
  TokenFile file = testing::tiny_rows();
  file.types.assign(file.tokens.size(), 1);
  Job job;
  const auto model = make_model({job, weights, file, {}});
  ASSERT_FALSE(model.has_value());
  EXPECT_NE(model.error().message.find("token type 1"), std::string::npos) << model.error().message;
}

}  // namespace
}  // namespace tailor::tune
