// `tailor models quantize` and `tailor models optimize`, and that `tailor serve` takes what was found.

#include <cmath>

#include "infer/test_models.h"
#include "tests/recipes/served.h"

namespace tailor::test {
namespace {

const std::string& some_text() {
  static const std::string kText = [] {
    std::string out;
    for (int i = 0; i < 60; ++i)
      out += "The flat in Mill Lane number " + std::to_string(i) + " has a garden, and the garage is let with it.\n";
    return out;
  }();
  return kText;
}

TEST(ModelsQuantize, WritesTheTypeThatIsNamed) {
  const TemporaryDirectory dir;
  const std::string model = tailor::testing::tiny_llama().string(), out = (dir.path() / "q8.gguf").string();
  const Outcome made = run({"models", "quantize", model, "--type", "q8_0", "--out", out});
  EXPECT_EQ(made.code, 0) << made.err;
  const Json shown = Json::parse(run({"models", "show", out, "--json"}).out, nullptr, false);
  EXPECT_EQ(shown.value("file_type", ""), "q8_0") << shown;
  EXPECT_LT(std::filesystem::file_size(out), std::filesystem::file_size(model) / 2);
  const Outcome again = run({"models", "quantize", model, "--type", "q8_0", "--out", out});
  EXPECT_NE(again.code, 0);
  EXPECT_TRUE(contains(again.err, "there is a file already")) << again.err;
  const Outcome unknown = run({"models", "quantize", model, "--type", "q3", "--out", out + "2"});
  EXPECT_NE(unknown.code, 0);
  EXPECT_TRUE(contains(unknown.err, "q4_k_m")) << unknown.err;
  EXPECT_FALSE(std::filesystem::exists(out + "2"));
}

/// Nats a token of the text's first 256 tokens, as a server tells them that serves the file as it is.
double loss_of(const std::filesystem::path& gguf) {
  Served server({"--model", gguf.string(), "--threads", "1"});
  const Json tokens =
      server.ask("POST", "/tokenize", {{"prompt", some_text()}, {"add_special_tokens", false}})["tokens"];
  const Json first(std::vector<Json>(tokens.begin(), tokens.begin() + 256));
  const Json answer =
      server.ask("POST", "/v1/completions", {{"prompt", first}, {"max_tokens", 0}, {"echo", true}, {"logprobs", 0}});
  double sum = 0;
  const Json& told = answer["choices"][0]["logprobs"]["token_logprobs"];
  for (std::size_t i = 1; i < told.size(); ++i) sum -= told[i].get<double>();
  return sum / static_cast<double>(told.size() - 1);
}

TEST(ModelsOptimize, KeepsTheFastestThatIsNoWorseAndServeTakesIt) {
  const TemporaryDirectory dir;
  const std::string model = tailor::testing::tiny_llama().string();
  write_file_atomic(dir.path() / "text.txt", some_text()).value();
  const std::vector<std::pair<std::string, std::string>> cache{{"TAILOR_CACHE", (dir.path() / "cache").string()}};
  const auto optimize = [&](const std::string& most) {
    const Outcome r =
        run({"models", "optimize", model, "--data", (dir.path() / "text.txt").string(), "--tokens", "255",
             "--prompt-tokens", "32", "--answer-tokens", "8", "--max-loss", most, "--threads", "1", "--json"},
            cache);
    EXPECT_EQ(r.code, 0) << r.err;
    return Json::parse(r.out, nullptr, false);
  };
  for (const std::string most : {"0", "1000"}) {
    const Json found = optimize(most);
    ASSERT_TRUE(found.is_object());
    EXPECT_EQ(found["tokens"], 255);
    const Json* chosen = nullptr;
    double fastest = INFINITY;
    for (const Json& format : found["formats"]) {
      const double high = format["loss_difference"]["high"].get<double>();
      EXPECT_EQ(format["worse"].get<bool>(), !format["original"].get<bool>() && high > std::stod(most)) << format;
      if (!format["worse"].get<bool>()) fastest = std::min(fastest, format["request_seconds"].get<double>());
      if (format["chosen"].get<bool>()) chosen = &format;
    }
    ASSERT_EQ(found["formats"].size(), 7u) << "f32 and six others";
    ASSERT_NE(chosen, nullptr);
    EXPECT_EQ((*chosen)["request_seconds"].get<double>(), fastest);
    EXPECT_FALSE((*chosen)["worse"].get<bool>());
    EXPECT_TRUE(found["formats"][0]["original"].get<bool>());
    EXPECT_NEAR(found["formats"][0]["kl"].get<double>(), 0, 1e-6);
    EXPECT_NEAR(found["formats"][0]["loss"].get<double>(), loss_of(model), 1e-3);
    const Json& smallest = found["formats"][6];
    EXPECT_EQ(smallest["type"], "q4_0");
    EXPECT_GT(smallest["kl"].get<double>(), 0.001);
    // The server takes what was found, by the same name.
    Json record;
    for (const auto& entry : std::filesystem::directory_iterator(dir.path() / "cache" / "imported")) {
      if (entry.path().filename().string().starts_with("optimized-")) record = read_json(entry.path()).value();
    }
    ASSERT_TRUE(record.is_object());
    EXPECT_EQ(record["type"], (*chosen)["type"]);
    EXPECT_EQ(std::filesystem::file_size(record["file"].get<std::string>()), (*chosen)["bytes"]);
    const Json kept = Json::parse(run({"models", "show", record["file"], "--json"}).out, nullptr, false);
    ::setenv("TAILOR_CACHE", cache[0].second.c_str(), 1);
    const Served server({"--model", model, "--threads", "1"});
    ::unsetenv("TAILOR_CACHE");
    const Json served = server.ask("GET", "/v1/models")["data"][0]["meta"];
    EXPECT_EQ(served["size"], kept["bytes"]) << most;
    EXPECT_EQ(served["file_type"], kept["file_type"]) << most;
    EXPECT_EQ(served["file_type"] == "f32", (*chosen)["original"].get<bool>()) << most;
  }
}

TEST(ModelsOptimize, RefusesWhatItCannotMeasure) {
  const TemporaryDirectory dir;
  write_file_atomic(dir.path() / "empty.txt", "").value();
  const std::string model = tailor::testing::tiny_llama().string();
  const Outcome empty = run({"models", "optimize", model, "--data", (dir.path() / "empty.txt").string()});
  EXPECT_NE(empty.code, 0);
  EXPECT_TRUE(contains(empty.err, "nothing in it counts as a prediction")) << empty.err;
  const Outcome encoder =
      run({"models", "optimize", "all-minilm-l6-v2", "--data", (dir.path() / "empty.txt").string()});
  EXPECT_NE(encoder.code, 0);
  EXPECT_TRUE(contains(encoder.err, "is an encoder")) << encoder.err;
}

}  // namespace
}  // namespace tailor::test
