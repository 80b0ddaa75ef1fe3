#pragma once
/// Packages for tests: tiny encoders with a head, and prompts on a tiny decoder.

#include <unistd.h>

#include <string>
#include <vector>

#include "core/head_file.h"
#include "fit/head_start.h"
#include "fit/near_rows.h"
#include "fit/package.h"
#include "fit/serving.h"
#include "infer/embedder.h"
#include "infer/test_models.h"
#include "learn/neighbours.h"
#include "model/test_encoder_family.h"
#include "prompt/demonstration_file.h"
#include "prompt/prompt_classifier.h"

namespace tailor::test {

/// A DistilBERT of 48 positions with random weights, made once a build directory.
inline std::filesystem::path tiny_encoder() {
  const std::filesystem::path out = tailor::testing::test_cache() / "tiny-distilbert.gguf";
  if (std::filesystem::exists(out)) return out;
  const TemporaryDirectory dir("tiny-encoder");
  tailor::testing::TinyEncoder("distilbert").write(dir.path());
  import_hugging_face(dir.path(), out).value();
  return out;
}

inline PackageManifest on_encoder(std::string_view serving, std::vector<std::string> labels) {
  PackageManifest manifest;
  manifest.method = "full";
  manifest.serving = serving;
  manifest.base = {"tiny", "encoder", tiny_encoder().string(), "", "unknown", ""};
  manifest.labels = std::move(labels);
  return manifest;
}

/// `manifest` of on_encoder() into `dir`. The head has this bias; its weights are random, of this size.
inline void write_encoder_package(const std::filesystem::path& dir, const PackageManifest& manifest,
                                  const std::vector<float>& bias, float size) {
  const auto width = static_cast<std::size_t>(Embedder::load(tiny_encoder(), {.threads = 1}).value().dim());
  const auto outputs = static_cast<std::int64_t>(bias.size());
  std::vector<float> weight(bias.size() * width);
  Rng rng(3, 1);
  for (float& w : weight) w = size * static_cast<float>(rng.normal());
  const std::vector<SafeTensor> tensors{
      safe_tensor<float>(kHeadWeight, "F32", {outputs, static_cast<std::int64_t>(width)}, weight),
      safe_tensor<float>(kHeadBias, "F32", {outputs}, bias)};
  std::filesystem::create_directories(dir);
  write_head_file(dir / "head.safetensors", tensors, false).value();
  close_package(dir, manifest, true).value();
}

/// Tags O, B-person, I-person, B-place, I-place, or without `spans` NOUN and VERB.
inline void write_tag_package(const std::filesystem::path& dir, const std::vector<float>& bias, float size,
                              bool spans = true) {
  PackageManifest manifest = on_encoder(kServeTags, {"O", "B-person", "I-person", "B-place", "I-place"});
  if (!spans) manifest.labels = {"NOUN", "VERB"};
  manifest.target.kind = PackageTarget::Kind::kTags;
  manifest.target.spans = spans;
  write_encoder_package(dir, manifest, bias, size);
}

inline void write_span_package(const std::filesystem::path& dir, float size, bool no_answer) {
  PackageManifest manifest = on_encoder(kServeSpan, {"first", "last"});
  manifest.target.kind = PackageTarget::Kind::kSpan;
  manifest.target.no_answer = no_answer;
  write_encoder_package(dir, manifest, {0, 0}, size);
}

inline const std::vector<Demonstration>& training_rows() {
  static const std::vector<Demonstration> kRows{{"May I see the flat?", 0},
                                                {"How much is the flat?", 1},
                                                {"The heating is broken again!", 2},
                                                {"Is Friday free for a visit?", 0}};
  return kRows;
}
inline const std::vector<std::string>& row_labels() {
  static const std::vector<std::string> kLabels{"viewing", "price", "complaint"};
  return kLabels;
}

/// The index of training_rows() as packages of neighbours and of retrieved demonstrations have it.
inline void write_row_index(const std::filesystem::path& dir, std::size_t k) {
  std::vector<std::string> texts;
  std::vector<int> labels;
  for (const Demonstration& row : training_rows()) {
    texts.push_back(row.text);
    labels.push_back(row.label);
  }
  Embedder embedder = Embedder::load(tiny_encoder(), {.threads = 1}).value();
  NeighbourIndex index = NeighbourIndex::make(embedder.embed(texts, {}, CancelToken()).value()).value();
  NeighbourModel{std::move(index), labels, static_cast<int>(row_labels().size()), {.k = k}}
      .save(dir / "neighbours.safetensors")
      .value();
}

/// `texts`: the rows themselves are in it.
inline void write_neighbours_package(const std::filesystem::path& dir, bool texts) {
  std::filesystem::create_directories(dir);
  write_row_index(dir, 1);
  if (texts) save_demonstrations(dir / kRowsFile, training_rows(), row_labels()).value();
  PackageManifest manifest = on_encoder("", row_labels());
  manifest.method = "neighbours";
  close_package(dir, manifest, true).value();
}

/// "rows", "tags" and "spans", made once a build directory: tests of other programs serve them.
inline std::filesystem::path small_packages() {
  namespace fs = std::filesystem;
  const fs::path out = tailor::testing::test_cache() / "packages";
  if (fs::exists(out)) return out;
  const fs::path made = tailor::testing::test_cache() / ("packages-" + std::to_string(getpid()));
  write_neighbours_package(made / "rows", true);
  write_tag_package(made / "tags", {0, 9, 0, 0, 0}, 0);  // every word is a person
  write_span_package(made / "spans", 0, false);          // the first word is the answer
  std::error_code there;                                 // another process may have made it meanwhile
  fs::rename(made, out, there);
  if (there) fs::remove_all(made);
  return out;
}

/// Labels scored by tiny_llama(); `retrieved`: its prompts show the nearest of training_rows().
inline void write_prompt_package(const std::filesystem::path& dir, bool retrieved) {
  std::filesystem::create_directories(dir);
  const std::filesystem::path model = tailor::testing::tiny_llama();
  PromptSettings settings;
  if (retrieved) settings = {.choice = DemonstrationChoice::kRetrieved, .demonstrations = 2};
  PromptClassifier::make(LabelScorer::load(model, {.threads = 1}).value(), settings, row_labels(),
                         retrieved ? training_rows() : std::vector<Demonstration>{})
      .value()
      .save(dir)
      .value();
  if (retrieved) {
    write_row_index(dir, 1);
    tailor::copy_file(tiny_encoder(), dir / "retriever.gguf").value();
  }
  PackageManifest manifest;
  manifest.method = retrieved ? "few-shot-retrieved" : "zero-shot";
  manifest.base = {"tiny", "decoder", model.string(), "", "unknown", ""};
  manifest.labels = row_labels();
  close_package(dir, manifest, false).value();
}

}  // namespace tailor::test
