/// Correctness that users of other tools miss, and bad input, as a user meets them in `tailor tune`: adapters that are
/// gone on with, tokens that are added, models that are damaged, training that cannot work.

#include <fmt/format.h>

#include <functional>

#include "core/json.h"
#include "infer/test_models.h"
#include "model/tokenizer.h"
#include "tests/recipes/cli.h"

namespace tailor::test {
namespace {

namespace fs = std::filesystem;

/// 24 conversations whose answers use a mark of their own.
std::string conversations() {
  return small_conversations(
      [](const char* thing, std::size_t i) { return fmt::format("<part>{} {}</part>", thing, i); });
}

/// The tiny model with its tensors and metadata changed.
struct Changed {
  std::function<bool(const std::string& name)> left_out = {};
  std::string twice = {};  // tensor that is written under another one's name
  std::string transposed = {};
  std::string architecture = {};
};
void write_changed(const fs::path& file, const Changed& change) {
  const GgufFile base = GgufFile::open(tailor::testing::tiny_llama()).value();
  GgufWriter writer;
  for (const auto& [key, value] : base.values()) {
    std::string name = key;
    if (!change.architecture.empty() && name.starts_with("llama."))
      name = change.architecture + name.substr(name.find('.'));
    writer.set(name, value);
  }
  if (!change.architecture.empty()) writer.set("general.architecture", GgufValue::string(change.architecture));
  for (const GgufTensor& tensor : base.tensors()) {
    if (change.left_out && change.left_out(tensor.name)) continue;
    std::vector<std::uint64_t> shape = tensor.shape;
    if (tensor.name == change.transposed) std::reverse(shape.begin(), shape.end());
    writer.add_raw(tensor.name, tensor.type, shape, [&tensor]() -> Result<std::string_view> { return tensor.bytes; });
  }
  writer.write(file).value();
  if (change.twice.empty()) return;
  // The writer refuses a name that is there: it is changed in the bytes, to another of its length.
  std::string bytes = read_file(file, std::size_t{1} << 30).value();
  std::string other = change.twice;
  std::replace(other.begin(), other.end(), '1', '0');
  const auto at = bytes.find(change.twice);
  ASSERT_NE(at, std::string::npos);
  bytes.replace(at, other.size(), other);
  write_file_atomic(file, bytes).value();
}

class TuneChecks : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!fs::exists(program().parent_path() / "tailor-tune")) GTEST_SKIP() << "this build has no tailor-tune";
    data_ = (dir_.path() / "chat.jsonl").string();
    write_file_atomic(data_, conversations()).value();
  }
  fs::path at(const std::string& name) const { return dir_.path() / name; }
  Outcome tune(const std::string& out, std::vector<std::string> more, const std::string& model = "") {
    std::vector<std::string> arguments{
        "tune", data_, "--quiet", "--answers", "1", "--out", at(out), "--model", model.empty() ? tiny() : model};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run(arguments);
  }
  Outcome tune_labels(const std::string& out, std::vector<std::string> more) {
    write_file_atomic(at("data.csv"), small_csv(24)).value();
    std::vector<std::string> arguments{"tune",   at("data.csv"), "--text", "message", "--label",
                                       "intent", "--quiet",      "--out",  at(out)};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run(arguments);
  }
  Json result(const std::string& out) { return read_json(at(out) / "result.json").value(); }
  static std::string tiny() { return tailor::testing::tiny_llama().string(); }
  void expect_refusal(const Outcome& r, std::initializer_list<std::string_view> parts) {
    EXPECT_EQ(r.code, 2) << r.err;
    for (const std::string_view part : parts)
      EXPECT_TRUE(contains(r.err, part)) << "expected: " << part << "\n" << r.err;
  }
  TemporaryDirectory dir_;
  std::string data_;
};

// Adapters.

TEST_F(TuneChecks, AnAdapterIsGoneOnWith) {
  ASSERT_EQ(tune("first", {"--method", "lora", "--r", "4", "--max-steps", "6", "--learning-rate", "0.01"}).code, 0);
  const std::string adapter = at("first") / "package" / "adapter";
  const double reached = result("first").at("losses").back();
  for (const std::string& file : {adapter, adapter + "/adapter.gguf"}) {
    fs::remove_all(at("second"));
    const Outcome r = tune("second", {"--adapter", file, "--max-steps", "3", "--learning-rate", "0.01"});
    ASSERT_EQ(r.code, 0) << r.err;
    const Json second = result("second");
    EXPECT_EQ(second.at("settings").at("lora").at("r"), 4);
    EXPECT_LT(second.at("losses").front().get<double>(), result("first").at("losses").front().get<double>());
    EXPECT_NEAR(second.at("losses").front().get<double>(), reached, 1.5);
    EXPECT_LT(second.at("served").at("largest_difference").get<double>(), 0.02);
  }
  expect_refusal(tune("a", {"--adapter", adapter, "--r", "8"}), {"settings.lora.r is 8", "has 4"});
  expect_refusal(tune("b", {"--adapter", adapter, "--method", "full"}), {"lora.start means nothing to method full"});
  expect_refusal(tune("c", {"--adapter", at("first")}), {"there is no adapter_config.json"});
  expect_refusal(tune("d", {"--adapter", adapter}, "smollm2-135m-instruct"), {"it was trained on another model"});
  expect_refusal(tune("e", {}, adapter + "/adapter.gguf"), {"is an adapter, not a model", "--adapter"});
}

TEST_F(TuneChecks, AnAdapterOfAnEncoderIsGoneOnWith) {
  ASSERT_EQ(tune_labels("first", {"--method", "lora", "--r", "4", "--max-steps", "6"}).code, 0);
  const Outcome r = tune_labels("second", {"--adapter", at("first") / "package" / "adapter", "--max-steps", "4"});
  ASSERT_EQ(r.code, 0) << r.err;
  const Json second = result("second");
  EXPECT_EQ(second.at("settings").at("lora").at("r"), 4);
  EXPECT_EQ(second.at("served").at("same_labels"), second.at("served").at("n_scored"));
  // Folded into the model by `models merge` it embeds as the package's encoder does.
  const Outcome merged =
      run({"models", "merge", "all-minilm-l6-v2", at("first") / "package" / "adapter", "--out", at("m.gguf")});
  ASSERT_EQ(merged.code, 0) << merged.err;
  const GgufFile ours = GgufFile::open(at("m.gguf")).value();
  const GgufFile package = GgufFile::open(at("first") / "package" / "tuned.gguf").value();
  const auto a = ours.tensor_f32("blk.3.attn_q.weight").value(), b = package.tensor_f32("blk.3.attn_q.weight").value();
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], 2e-3);
}

TEST_F(TuneChecks, AnAdapterThatChangesNothingIsAnError) {
  // The only step is the first of the warm-up, whose rate is 0.
  expect_refusal(tune("none", {"--method", "lora", "--max-steps", "1"}), {"train longer"});
  EXPECT_FALSE(fs::exists(at("none") / "package"));
}

// Tokens.

TEST_F(TuneChecks, AddedTokensAreSingleOnesAndServedAsTrained) {
  const std::vector<std::string> tokens{"--add-token", "<part>", "--add-token", "</part>"};
  std::vector<std::string> shown{"tune", data_, "--dry-run", "--model", tiny()};
  shown.insert(shown.end(), tokens.begin(), tokens.end());
  const Outcome preview = run(shown);
  ASSERT_EQ(preview.code, 0) << preview.err;
  EXPECT_TRUE(contains(preview.out, "learnt  <part>|flat| |0|</part>|<|im_end|>")) << preview.out;
  for (const char* how : {"rows", "whole", "full"}) {
    std::vector<std::string> more = tokens;
    more.insert(more.end(), {"--max-steps", "4", "--learning-rate", "0.01", "--method",
                             how == std::string("full") ? "full" : "lora"});
    if (how == std::string("whole")) more.insert(more.end(), {"--modules-to-save", "embed_tokens"});
    const Outcome r = tune(how, more);
    ASSERT_EQ(r.code, 0) << r.err;
    const Json figures = result(how);
    EXPECT_LT(figures.at("served").at("largest_difference").get<double>(), 0.02) << how;
    EXPECT_LT(figures.at("test").at("loss").get<double>(), figures.at("untouched").at("loss").get<double>()) << how;
    const fs::path gguf = at(how) / "package" / "tuned.gguf";
    const Tokenizer tokenizer = Tokenizer::load(gguf).value();
    const std::size_t known = Tokenizer::load(tiny()).value().vocabulary_size();
    EXPECT_EQ(tokenizer.vocabulary_size(), known + 2);
    EXPECT_EQ(tokenizer.encode("<part>", false), (std::vector<std::int32_t>{static_cast<std::int32_t>(known)}));
    const Outcome exported = run({"models", "export", gguf, "--to", "hf", "--out", at(how) / "hf"});
    ASSERT_EQ(exported.code, 0) << exported.err;
    EXPECT_EQ(read_json(at(how) / "hf" / "config.json").value().at("vocab_size"), known + 2);
    EXPECT_TRUE(contains(read_file(at(how) / "hf" / "tokenizer.json").value(), "</part>"));
    if (how != std::string("rows")) continue;
    EXPECT_EQ(figures.at("settings").at("lora").at("trained_tokens"), Json::array({known, known + 1}));
    const Json adapter = read_json(at(how) / "package" / "adapter" / "adapter_config.json").value();
    EXPECT_EQ(adapter.at("trainable_token_indices").at("embed_tokens"), Json::array({known, known + 1}));
  }
  // Gone on with, with the same tokens.
  std::vector<std::string> more = tokens;
  more.insert(more.end(), {"--adapter", at("rows") / "package" / "adapter", "--max-steps", "2"});
  const Outcome again = tune("again", more);
  ASSERT_EQ(again.code, 0) << again.err;
  expect_refusal(tune("less", {"--adapter", at("rows") / "package" / "adapter"}), {"there is no token"});
  more = tokens;
  more.insert(more.end(), {"--method", "layernorm"});
  expect_refusal(tune("norms", more), {"added_tokens would stay unlearnt", "use method lora, or full"});
  expect_refusal(tune("blank", {"--add-token", "a b"}), {"holds a blank"});
  expect_refusal(tune_labels("encoder", {"--add-token", "<x>"}), {"added_tokens are for decoders"});
}

// Models that are damaged.

TEST_F(TuneChecks, ModelsThatCannotBeTunedAreNamed) {
  const std::string file = at("model.gguf");
  const auto refusal = [&](const Changed& change) {
    write_changed(file, change);
    fs::remove_all(at("run"));
    return tune("run", {"--max-steps", "1"}, file);
  };
  expect_refusal(refusal({.architecture = "mamba"}), {"mamba", "llama", "Qwen 2"});
  expect_refusal(refusal({.left_out = [](const std::string& name) { return name == "blk.1.ffn_up.weight"; }}),
                 {"blk.1.ffn_up.weight"});
  expect_refusal(refusal({.twice = "blk.1.ffn_up.weight"}), {"blk.0.ffn_up.weight"});
  expect_refusal(refusal({.transposed = "blk.0.ffn_down.weight"}), {"blk.0.ffn_down.weight"});
}

// Training that cannot work.

TEST_F(TuneChecks, ARankAboveADimensionAndNoTargetsAreNamed) {
  expect_refusal(tune("rank", {"--r", "100"}), {"rank is 100", "has a dimension of"});
  expect_refusal(tune("none", {"--set", "lora.target_modules=[]"}), {"lora.target_modules"});
  expect_refusal(tune("other", {"--target-modules", "query_key_value"}), {"query_key_value", "q_proj"});
}

TEST_F(TuneChecks, RowsWithoutALearntTokenAreNamed) {
  std::string rows;
  for (int i = 0; i < 20; ++i) {
    rows += fmt::format(R"({{"messages": [{{"role": "user", "content": "Question {0}?"}}, )"
                        R"({{"role": "assistant", "content": "Answer {0}", "weight": 0}}]}})"
                        "\n",
                        i);
  }
  write_file_atomic(data_, rows).value();
  expect_refusal(tune("masked", {}), {"weight"});
}

TEST_F(TuneChecks, RowsLongerThanTheContextLoseTheirEndAndThatIsSaid) {
  std::string rows, words;
  for (int i = 0; i < 3000; ++i) words += " word";
  for (int i = 0; i < 12; ++i) {
    const Json messages{{{"role", "user"}, {"content", fmt::format("Question {}?", i)}},
                        {{"role", "assistant"}, {"content", (i == 3 ? words : " short") + fmt::format(" {}", i)}}};
    rows += dump_json({{"messages", messages}}) + "\n";
  }
  write_file_atomic(data_, rows).value();
  const Outcome shown = run({"tune", data_, "--dry-run", "--model", tiny()});
  ASSERT_EQ(shown.code, 0) << shown.err;
  EXPECT_TRUE(contains(shown.out + shown.err, "2048")) << shown.out << shown.err;
  EXPECT_EQ(tune("cut", {"--max-steps", "2"}).code, 0);
}

TEST_F(TuneChecks, ARateThatExplodesIsLoweredAndSaid) {
  const Outcome r = tune("wild", {"--method", "full", "--learning-rate", "100", "--schedule", "constant",
                                  "--warmup-ratio", "0", "--max-steps", "24", "--evaluate-every-epochs", "0"});
  if (r.code == 0) {
    EXPECT_GT(result("wild").at("rollbacks").get<int>(), 0) << r.err;
    EXPECT_TRUE(contains(r.err, "going back")) << r.err;
  } else {
    expect_refusal(r, {"diverged", "learning_rate"});
  }
}

TEST_F(TuneChecks, ARunIsNotResumedOnAnotherModel) {
  const std::string file = at("model.gguf");
  write_changed(file, {});
  const std::string out = at("run");
  CancelToken stop;
  const auto ended =
      run_process(
          {.command = {program().string(), "tune", data_, "--model", file, "--max-steps", "40", "--json", "--out", out},
           .stderr_file = at("log")},
          [&](std::string_view line) {
            const Json event = parse_json(std::string(line), "event").value();
            if (event.value("event", "") == "step" && event.value("step", 0) == 2) stop.cancel();
          },
          stop)
          .value();
  ASSERT_EQ(ended.exit_code, 130) << read_file(at("log")).value();
  std::string bytes = read_file(file, std::size_t{1} << 30).value();
  bytes[bytes.size() - 197] = static_cast<char>(bytes[bytes.size() - 197] ^ 1);  // of an exponent: it shows in f16
  write_file_atomic(file, bytes).value();
  const Outcome resumed = run({"tune", "--resume", out, "--quiet"});
  expect_refusal(resumed, {"belongs to another job (model, data or settings differ)"});
}

}  // namespace
}  // namespace tailor::test
