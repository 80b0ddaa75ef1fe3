// Messages classified per CPU-second by scoring all labels of a list with a language model.
// Run:   bench_score_labels --model smollm2-f16.gguf --labels labels.json --texts texts.txt     (see
// peers/score_labels.py)
// --labels: a JSON list of names; --texts: one message a line; --truth: its label, one a line (accuracy is printed).
// Prints one JSON line.

#include <CLI/CLI.hpp>
#include <cstdio>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "core/json.h"
#include "prompt/prompt_classifier.h"
#include "timing.h"

namespace {

std::vector<std::string> lines_of(const std::string& file, std::size_t limit) {
  std::vector<std::string> lines;
  std::ifstream in(file);
  for (std::string line; lines.size() < limit && std::getline(in, line);) lines.push_back(line);
  return lines;
}

}  // namespace

int main(int argc, char** argv) {
  using namespace tailor;
  CLI::App app("messages classified per CPU-second by label scoring");
  std::string model, labels_file, texts_file, truth_file, end = "auto", predictions_file;
  LabelScorerOptions options;
  PromptTemplate prompt;
  std::size_t limit = 100;
  bool best_first = false, calibrate_batch = false, by_length = false;
  app.add_option("--model", model)->required();
  app.add_option("--labels", labels_file)->required();
  app.add_option("--texts", texts_file)->required();
  app.add_option("--truth", truth_file);
  app.add_option("--limit", limit);
  app.add_option("--threads", options.threads);
  app.add_option("--end", end)->check(CLI::IsMember({"auto", "none", "newline"}));
  app.add_flag("--list-labels", prompt.list_labels);
  app.add_flag("--chat", prompt.chat);
  app.add_flag("--best", best_first, "best-first search instead of full scores");
  app.add_flag("--batch-mean", calibrate_batch, "batch-mean calibration on the messages themselves");
  app.add_flag("--by-length", by_length, "length normalisation");
  app.add_flag("--f32-cache", options.f32_cache);
  app.add_flag("--no-flash{false}", options.flash_attention);
  app.add_option("--predictions", predictions_file, "write the best label of each message");
  CLI11_PARSE(app, argc, argv);
  prompt.end = end == "none" ? LabelEnd::kNone : end == "newline" ? LabelEnd::kNewline : LabelEnd::kAuto;
  try {
    const auto labels = read_json(labels_file).value().get<std::vector<std::string>>();
    const std::vector<std::string> texts = lines_of(texts_file, limit);
    PromptClassifier classifier =
        PromptClassifier::make(LabelScorer::load(model, options).value(), {.prompt = prompt}, labels, {}).value();
    const CancelToken cancel;
    std::vector<std::int32_t> predicted;
    double nodes = classifier.scorer().trie_nodes();
    (void)classifier.score(std::span(texts).first(2), {}, {}, cancel).value();  // warm-up; decodes the prefix
    if (best_first && (calibrate_batch || by_length)) {
      const std::vector<LabelScores> scores = classifier.score(texts, {}, {}, cancel).value();
      classifier.set_calibration(calibrate(calibrate_batch ? CalibrationKind::kBatchMean : CalibrationKind::kNone,
                                           by_length, scores, classifier.label_tokens())
                                     .value());
    }
    const bench::Stopwatch watch;
    if (best_first) {
      nodes = 0;
      const std::vector<BestLabel> found = classifier.best(texts, {}, {}, cancel).value();
      for (const BestLabel& best : found) {
        predicted.push_back(best.label);
        nodes += static_cast<double>(best.nodes) / static_cast<double>(texts.size());
      }
    } else {
      const std::vector<LabelScores> scores = classifier.score(texts, {}, {}, cancel).value();
      const Calibration calibration = calibrate(calibrate_batch ? CalibrationKind::kBatchMean : CalibrationKind::kNone,
                                                by_length, scores, classifier.label_tokens())
                                          .value();
      for (const LabelScores& row : scores) predicted.push_back(arg_max(calibration.apply(row)));
    }
    const bench::Seconds seconds = watch.elapsed();
    double accuracy = -1;
    if (!truth_file.empty()) {
      const std::vector<std::string> truth = lines_of(truth_file, limit);
      accuracy = 0;
      for (std::size_t i = 0; i < texts.size(); ++i)
        accuracy +=
            labels[static_cast<std::size_t>(predicted[i])] == truth[i] ? 1.0 / static_cast<double>(texts.size()) : 0;
    }
    std::printf(
        "{\"examples\": %zu, \"labels\": %zu, \"trie_nodes\": %d, \"nodes_computed\": %.1f, \"cpu_seconds\": %.3f, "
        "\"wall_seconds\": %.3f, \"examples_per_cpu_second\": %.3f, \"accuracy\": %.4f}\n",
        texts.size(), labels.size(), classifier.scorer().trie_nodes(), nodes, seconds.cpu, seconds.wall,
        static_cast<double>(texts.size()) / seconds.cpu, accuracy);
    if (!predictions_file.empty()) {
      std::ofstream out(predictions_file);
      for (const std::int32_t label : predicted) out << labels[static_cast<std::size_t>(label)] << '\n';
    }
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
}
