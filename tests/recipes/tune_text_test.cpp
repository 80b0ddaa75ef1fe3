/// `tailor tune` and `tailor generate` on conversations and completions as a user runs them.

#include <fmt/format.h>

#include "core/json.h"
#include "infer/chat_template.h"
#include "infer/test_models.h"
#include "tests/recipes/cli.h"

namespace tailor::test {
namespace {

namespace fs = std::filesystem;

/// 24 questions, each with an answer of its own form.
std::string conversations() {
  return small_conversations([](const char* thing, std::size_t i) { return fmt::format("{{\"{}\": {}}}", thing, i); });
}

/// The tiny llama with templates of its own: by key of the GGUF.
void write_with_templates(const fs::path& to, const std::vector<std::pair<std::string, std::string>>& templates) {
  const GgufFile base = GgufFile::open(tailor::testing::tiny_llama()).value();
  GgufWriter writer;
  for (const auto& [key, value] : base.values()) writer.set(key, value);
  for (const auto& [key, source] : templates) writer.set(key, GgufValue::string(source));
  for (const GgufTensor& tensor : base.tensors()) {
    writer.add_raw(tensor.name, tensor.type, tensor.shape,
                   [&tensor]() -> Result<std::string_view> { return tensor.bytes; });
  }
  writer.write(to).value();
}

class TuneText : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (!fs::exists(program().parent_path() / "tailor-tune")) GTEST_SKIP() << "this build has no tailor-tune";
    data_ = (dir_.path() / "chat.jsonl").string();
    write_file_atomic(data_, conversations()).value();
  }
  Outcome tune(const std::string& out, std::vector<std::string> more) {
    std::vector<std::string> arguments{"tune", data_, "--quiet", "--out", (dir_.path() / out).string()};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run(arguments);
  }
  /// The same questions through `generate`, together as the run asked them: the same answers in the same order.
  void expect_answers_as_recorded(const fs::path& out) {
    const auto answers = read_jsonl(out / "answers.jsonl").value();
    std::vector<std::string> words{"generate", (out / "package").string()};
    for (const Json& answer : answers) words.push_back(answer.at("prompt").at(0).at("content"));
    words.emplace_back("--json");
    const Outcome g = run(words);
    ASSERT_EQ(g.code, 0) << g.err;
    write_file_atomic(dir_.path() / "generated.jsonl", g.out).value();
    const auto lines = read_jsonl(dir_.path() / "generated.jsonl").value();
    ASSERT_EQ(lines.size(), answers.size());
    for (std::size_t i = 0; i < lines.size(); ++i) EXPECT_EQ(lines[i].at("text"), answers[i].at("tuned")) << i;
  }
  TemporaryDirectory dir_;
  std::string data_;
};

TEST_P(TuneText, ThePackageScoresAndAnswersAsRecorded) {
  const Outcome r = tune("run", {"--method", GetParam(), "--max-steps", "3", "--answers", "2"});
  ASSERT_EQ(r.code, 0) << r.err;
  const fs::path out = dir_.path() / "run";
  const Json result = read_json(out / "result.json").value();
  EXPECT_EQ(result.at("method"), GetParam());
  EXPECT_EQ(result.at("data").at("train").get<int>() + result.at("data").at("validation").get<int>() +
                result.at("data").at("test").get<int>(),
            24);
  EXPECT_LT(result.at("test").at("loss").get<double>(), result.at("untouched").at("loss").get<double>());
  EXPECT_LT(result.at("served").at("largest_difference").get<double>(), 0.02);  // f16 weights and cache
  EXPECT_NEAR(result.at("served").at("loss").get<double>(), result.at("test").at("loss").get<double>(), 0.02);
  EXPECT_TRUE(result.at("served").at("answers").at("valid_json").is_number());
  ASSERT_FALSE(result.at("evaluations").empty());
  for (const Json& e : result.at("evaluations")) {
    EXPECT_EQ(e.at("rows"), result.at("data").at("validation"));
    EXPECT_FALSE(e.contains("accuracy")) << "texts have no labels";
  }
  const auto rows = read_jsonl(out / "test_predictions.jsonl").value();
  EXPECT_EQ(rows.size(), result.at("test").at("n_scored").get<std::size_t>());
  EXPECT_FALSE(fs::exists(out / "train"));
  EXPECT_EQ(read_jsonl(out / "answers.jsonl").value().size(), 2u);
  expect_answers_as_recorded(out);
  const Outcome predict = run({"predict", (out / "package").string(), "a text"});
  EXPECT_EQ(predict.code, 2);
  EXPECT_TRUE(contains(predict.err, "tailor generate")) << predict.err;
}

INSTANTIATE_TEST_SUITE_P(OfADecoder, TuneText,
                         ::testing::Values("lora", "qlora", "layernorm", "adapter-houlsby", "prefix-tuning"));

using TuneTextWords = TuneText;

TEST_F(TuneTextWords, AQuantizedPackageAnswersAsRecorded) {
  const Outcome r = tune("run", {"--method", "lora", "--max-steps", "3", "--answers", "2", "--quantize", "q8_0"});
  ASSERT_EQ(r.code, 0) << r.err;
  const fs::path out = dir_.path() / "run";
  const Json result = read_json(out / "result.json").value();
  EXPECT_LT(result.at("served").at("largest_difference").get<double>(), 0.02);
  EXPECT_EQ(result.at("quantized").at("type"), "q8_0");
  EXPECT_NE(result.at("quantized").at("loss"), result.at("served").at("loss"));
  EXPECT_NEAR(result.at("quantized").at("loss").get<double>(), result.at("served").at("loss").get<double>(), 0.1);
  expect_answers_as_recorded(out);
}

TEST_F(TuneTextWords, CompletionsOfACsvGoOnWithTheRawText) {
  std::string csv = "prompt,completion\n";
  for (int i = 0; i < 20; ++i) csv += fmt::format("{} plus one is, {}\n", i, i + 1);
  data_ = (dir_.path() / "sums.csv").string();
  write_file_atomic(data_, csv).value();
  const Outcome r = tune("run", {"--max-steps", "2", "--answers", "1"});
  ASSERT_EQ(r.code, 0) << r.err;
  const auto answers = read_jsonl(dir_.path() / "run" / "answers.jsonl").value();
  const Outcome g = run({"generate", (dir_.path() / "run" / "package").string(), answers[0].at("prompt"), "--json"});
  EXPECT_EQ(parse_json(g.out, "answer").value().at("text"), answers[0].at("tuned"));
  const Outcome system =
      run({"generate", (dir_.path() / "run" / "package").string(), "1 plus one is", "--system", "Be brief."});
  EXPECT_EQ(system.code, 2);
}

TEST_F(TuneTextWords, WithBf16WhatAnswersIsTheRoundedModelThatWasTrained) {
  for (const std::string method : {"lora", "prompt-tuning"}) {
    const Outcome r = tune(method, {"--method", method, "--max-steps", "3", "--answers", "1", "--dtype", "bf16",
                                    "--activation-checkpointing"});
    ASSERT_EQ(r.code, 0) << r.err;
    const Json result = read_json(dir_.path() / method / "result.json").value();
    EXPECT_EQ(result.at("base_in_memory"), "bf16");
    EXPECT_EQ(result.at("device"), "cpu");
    EXPECT_EQ(result.at("settings").at("activation_checkpointing"), true);
    EXPECT_LT(result.at("served").at("largest_difference").get<double>(), 0.02);  // f16 cache
    EXPECT_NEAR(result.at("served").at("loss").get<double>(), result.at("test").at("loss").get<double>(), 0.02);
    const Json manifest = read_json(dir_.path() / method / "package" / "manifest.json").value();
    EXPECT_TRUE(contains(dump_json(manifest), "-bf16.gguf")) << manifest.dump();
  }
  const Outcome refused = tune("none", {"--method", "full", "--dtype", "bf16"});
  EXPECT_EQ(refused.code, 2);
  EXPECT_TRUE(contains(refused.err, "dtype means nothing to method full")) << refused.err;
}

TEST_F(TuneTextWords, ADryRunShowsWhatIsLearntAndWritesNothing) {
  const Outcome r = run({"tune", data_, "--dry-run", "--max-tokens", "42", "--out", (dir_.path() / "none").string()});
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_TRUE(contains(r.out, "  learnt  {\"|flat|\":| |0|}|<|im_end|>")) << r.out;
  EXPECT_TRUE(contains(r.out, "    read  <|im_start|>|system|\\n|You| are|")) << r.out;
  EXPECT_TRUE(contains(r.out, "<|im_start|>|user|\\n|Is| the| flat| free|?|<|im_end|>|\\n|")) << r.out;
  EXPECT_TRUE(contains(r.out, "line 2: 42 tokens, 6 learnt, cut at the limit")) << r.out;
  EXPECT_FALSE(fs::exists(dir_.path() / "none"));
}

TEST_F(TuneTextWords, CallsOfToolsAreLearntAsTheTemplateWritesThem) {
  std::string rows;
  for (int i = 0; i < 12; ++i) {
    rows += fmt::format(
        R"({{"tools": [{{"type": "function", "function": {{"name": "weather", "parameters": {{}}}}}}], "messages": [)"
        R"({{"role": "user", "content": "Weather in town {0}?"}}, {{"role": "assistant", "content": null, "tool_calls": )"
        R"([{{"id": "c1", "type": "function", "function": {{"name": "weather", "arguments": "{{\"town\": {0}}}"}}}}]}}]}})"
        "\n",
        i);
  }
  write_file_atomic(data_, rows).value();
  // SmolLM2's template has no place for tools.
  const Outcome refused = run({"tune", data_, "--dry-run"});
  EXPECT_EQ(refused.code, 2);
  EXPECT_TRUE(contains(refused.err, "line 1: the model's chat template has no place for tools")) << refused.err;
  // The same vocabulary with a template that has.
  const fs::path model = dir_.path() / "with-tools.gguf";
  const Json golden = read_json(tailor::testing::golden("chat_templates.json")).value();
  write_with_templates(model,
                       {{"tokenizer.chat_template", golden.at("templates").at("qwen-tools").get<std::string>()}});
  const Outcome shown = run({"tune", data_, "--dry-run", "--model", model.string()});
  ASSERT_EQ(shown.code, 0) << shown.err;
  std::string joined = shown.out;
  std::erase(joined, '|');
  EXPECT_TRUE(contains(joined, "learnt  <think>")) << shown.out;
  EXPECT_TRUE(contains(joined, R"({"name": "weather", "arguments": {"town": )")) << shown.out;
  EXPECT_TRUE(contains(joined, "# Tools\\n<tools>")) << shown.out;
  // A template of its own for conversations with tools, as Command R and Hermes carry one.
  const fs::path named = dir_.path() / "named.gguf";
  write_with_templates(
      named, {{"tokenizer.chat_template", ChatTemplate::chatml()},
              {"tokenizer.chat_template.tool_use",
               "{% for t in tools or [] %}OFFERED {{ t.function.name }}. {% endfor %}{% for m in messages "
               "%}{{ m.role }}:{{ m.content or '' }}{% for c in m.tool_calls or [] %}CALL {{ c.function.name }} "
               "{{ c.function.arguments | tojson }}{% endfor %}{{ eos_token }}{% endfor %}{% if "
               "add_generation_prompt %}assistant:{% endif %}"}});
  const Outcome by_name = run({"tune", data_, "--dry-run", "--model", named.string()});
  ASSERT_EQ(by_name.code, 0) << by_name.err;
  joined = by_name.out;
  std::erase(joined, '|');
  EXPECT_TRUE(contains(joined, "OFFERED weather. user:Weather in town")) << by_name.out;
  EXPECT_TRUE(contains(joined, R"(CALL weather {"town": )")) << by_name.out;
  write_file_atomic(data_, conversations()).value();  // without tools: the other one
  const Outcome plain = run({"tune", data_, "--dry-run", "--model", named.string()});
  EXPECT_TRUE(contains(plain.out, "read  <|im_start|>|user|")) << plain.out;
}

TEST_F(TuneTextWords, ATemplateIsServedWithTheVariablesAndTheDateItWasLearntWith) {
  const fs::path model = dir_.path() / "thinks.gguf";
  write_with_templates(
      model, {{"tokenizer.chat_template",
               "Today is {{ strftime_now('%d %B %Y') }}. {% for m in messages %}<|im_start|>{{ m.role }}\n{{ "
               "m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% if "
               "enable_thinking is defined and not enable_thinking %}(at once) {% endif %}{% endif %}"}});
  const std::vector<std::string> words{
      "--model",         model.string(),       "--template-variable", "enable_thinking=false",
      "--template-date", "2024-02-29T08:00:00"};
  std::vector<std::string> dry = words;
  dry.insert(dry.begin(), {"tune", data_, "--dry-run"});
  const Outcome shown = run(dry);
  ASSERT_EQ(shown.code, 0) << shown.err;
  std::string joined = shown.out;
  std::erase(joined, '|');
  EXPECT_TRUE(contains(joined, "Today is 29 February 2024.")) << shown.out;
  EXPECT_TRUE(contains(joined, "(at once)")) << shown.out;
  std::vector<std::string> more = words;
  more.insert(more.end(), {"--max-steps", "4", "--answers", "2"});
  const Outcome tuned = tune("run", more);
  ASSERT_EQ(tuned.code, 0) << tuned.err;
  const fs::path package = dir_.path() / "run" / "package";
  const Json text = read_json(package / "text.json").value();
  EXPECT_EQ(text.at("template_variables"), Json({{"enable_thinking", false}}));
  EXPECT_EQ(text.at("template_date"), "2024-02-29T08:00:00");
  // What the package's losses and answers were computed on is what was trained on.
  const Json result = read_json(dir_.path() / "run" / "result.json").value();
  EXPECT_LT(result.at("served").at("largest_difference").get<double>(), 0.02);
  const auto answers = read_jsonl(dir_.path() / "run" / "answers.jsonl").value();
  const std::string question = answers[0].at("prompt").at(0).at("content");
  const Outcome asked = run({"generate", package.string(), question, "--json"});
  ASSERT_EQ(asked.code, 0) << asked.err;
  expect_answers_as_recorded(dir_.path() / "run");
  const Outcome other =
      run({"generate", package.string(), question, "--json", "--template-variable", "enable_thinking=true"});
  ASSERT_EQ(other.code, 0) << other.err;
  EXPECT_TRUE(contains(other.err, "learnt with enable_thinking = false, and is asked with true")) << other.err;
  EXPECT_LT(parse_json(other.out, "answer").value().at("prompt_tokens").get<int>(),
            parse_json(asked.out, "answer").value().at("prompt_tokens").get<int>());

  // A run records when it began, and goes on with that.
  ASSERT_EQ(tune("dated", {"--model", model.string(), "--max-steps", "2", "--answers", "1"}).code, 0);
  const Json dated = read_json(dir_.path() / "dated" / "run.json").value();
  EXPECT_EQ(dated.at("options").at("template_date"),
            read_json(dir_.path() / "dated" / "package" / "text.json").value().at("template_date"));
  EXPECT_EQ(dated.at("options").at("template_date").get<std::string>().size(), 19u);

  int refusals = 0;
  const auto refused = [&](std::vector<std::string> arguments, std::string_view part) {
    arguments.insert(arguments.begin(), {"--model", model.string()});
    const Outcome r = tune("refused" + std::to_string(++refusals), arguments);
    EXPECT_EQ(r.code, 2);
    EXPECT_TRUE(contains(r.err, part)) << r.err;
    EXPECT_FALSE(fs::exists(dir_.path() / ("refused" + std::to_string(refusals)) / "run.json"));  // nothing to resume
  };
  refused({"--template-variable", "enable_thinkng=false"}, "reads no variable enable_thinkng");
  refused({"--template-variable", "messages=1"}, "cannot be set");
  refused({"--template-variable", "enable_thinking"}, "expected name=value");
  refused({"--template-date", "yesterday"}, "expected one such as 2026-06-01T12:00:00");
}

TEST_F(TuneTextWords, AnInterruptedRunGoesOnToTheSameEnd) {
  const std::string out = (dir_.path() / "run").string();
  CancelToken stop;
  const auto ended =
      run_process(
          {.command = {program().string(), "tune", data_, "--max-steps", "4", "--answers", "1", "--json", "--out", out},
           .stderr_file = dir_.path() / "log"},
          [&](std::string_view line) {
            const Json event = parse_json(std::string(line), "event").value();
            if (event.value("event", "") == "step" && event.value("step", 0) == 2) stop.cancel();
          },
          stop)
          .value();
  EXPECT_EQ(ended.exit_code, 130) << read_file(dir_.path() / "log").value();
  EXPECT_FALSE(fs::exists(fs::path(out) / "result.json"));
  const Outcome resumed = run({"tune", "--resume", out, "--quiet"});
  ASSERT_EQ(resumed.code, 0) << resumed.err;
  ASSERT_EQ(tune("whole", {"--max-steps", "4", "--answers", "1"}).code, 0);
  const Json a = read_json(fs::path(out) / "result.json").value();
  const Json b = read_json(dir_.path() / "whole" / "result.json").value();
  EXPECT_GE(a.at("resumed_from_step").get<int>(), 2);
  EXPECT_EQ(a.at("losses"), b.at("losses"));
  EXPECT_EQ(a.at("test"), b.at("test"));
  // Other data than the run began with.
  const Outcome changed = [&] {
    fs::remove(fs::path(out) / "result.json");
    write_file_atomic(data_, conversations() + R"({"messages": [{"role": "user", "content": "x"}, )"
                                               R"({"role": "assistant", "content": "y"}]})"
                                               "\n")
        .value();
    return run({"tune", "--resume", out, "--quiet"});
  }();
  EXPECT_EQ(changed.code, 2);
  EXPECT_TRUE(contains(changed.err, "was changed since the run began")) << changed.err;
}

TEST_F(TuneTextWords, SayWhatIsWrong) {
  const auto expect = [&](const Outcome& r, std::string_view part) {
    EXPECT_EQ(r.code, 2) << r.err;
    EXPECT_TRUE(contains(r.err, part)) << r.err;
  };
  expect(tune("a", {"--method", "head"}), "tunes encoders");
  expect(tune("b", {"--max-tokens", "1000000"}), "--max-tokens 1000000 is more than");
  expect(tune("c", {"--max-tokens", "3"}), "no training row is left");
  expect(tune("d", {"--metric", "accuracy"}), "its metric is loss");
  write_file_atomic(data_, R"({"question": "a", "answer": "b"})"
                           "\n")
      .value();
  expect(tune("e", {}), "question");
  write_file_atomic(data_, R"({"prompt": "a", "completion": "b"})"
                           "\n")
      .value();
  expect(tune("f", {}), "1 usable example(s), at least 10");
  expect(run({"generate"}), "needs a package");
  expect(run({"generate", "--model", "no-such-model", "text"}), "no-such-model");
  expect(run({"generate", (dir_.path() / "absent").string(), "text"}), "is not a package");
}

}  // namespace
}  // namespace tailor::test
