#include "prompt/prompt_classifier.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "core/files.h"
#include "infer/test_models.h"
#include "prompt/demonstrations.h"

namespace tailor {
namespace {

using testing::expect_error;
const CancelToken kNever;

const std::vector<std::string> kLabels{"viewing_appointment", "price", "complaint"};
const std::vector<Demonstration> kPool{{"May I see the flat?", 0},
                                       {"How much is it?", 1},
                                       {"The heating is broken again!", 2},
                                       {"Is Friday free for a visit?", 0}};
const std::vector<std::string> kTexts{"Could we look at the house on Monday?", "What does the garage cost", "",
                                      "I am very unhappy with your service"};
const Neighbours kNeighbours{{3, 0, 1}, {1, 2}, {}, {2, 1, 0}};

LabelScorer scorer() {
  return LabelScorer::load(testing::tiny_llama(), {.threads = 2, .f32_cache = true, .flash_attention = false}).value();
}

PromptClassifier classifier(DemonstrationChoice choice, int label_neighbours = 0) {
  return PromptClassifier::make(scorer(), {.choice = choice, .demonstrations = 2, .label_neighbours = label_neighbours},
                                kLabels, choice == DemonstrationChoice::kNone ? std::vector<Demonstration>{} : kPool)
      .value();
}

TEST(PromptClassifier, ProbabilitiesFollowTheScores) {
  for (const DemonstrationChoice choice :
       {DemonstrationChoice::kNone, DemonstrationChoice::kFixed, DemonstrationChoice::kRetrieved}) {
    PromptClassifier c = classifier(choice);
    const std::vector<LabelScores> scores = c.score(kTexts, kNeighbours, {}, kNever).value();
    const Matrix p = c.classify(kTexts, kNeighbours, {}, kNever).value();
    const std::vector<BestLabel> best = c.best(kTexts, kNeighbours, {}, kNever).value();
    for (std::size_t i = 0; i < kTexts.size(); ++i) {
      EXPECT_NEAR(std::accumulate(p.row(i).begin(), p.row(i).end(), 0.0), 1.0, 1e-6);
      EXPECT_EQ(std::max_element(p.row(i).begin(), p.row(i).end()) - p.row(i).begin(), arg_max(scores[i]));
      EXPECT_EQ(best[i].label, arg_max(scores[i]));
    }
  }
}

TEST(PromptClassifier, PromptsShowWhatTheyShould) {
  EXPECT_EQ(classifier(DemonstrationChoice::kNone).example_prompt("Hi", {}),
            "Classify the customer's message.\nMessage: Hi\nLabel:");
  EXPECT_EQ(classifier(DemonstrationChoice::kRetrieved).example_prompt("Hi", kNeighbours[0]),
            "Classify the customer's message.\nMessage: May I see the flat?\nLabel: viewing appointment\n"
            "Message: Is Friday free for a visit?\nLabel: viewing appointment\nMessage: Hi\nLabel:");
}

TEST(PromptClassifier, LabelsMayBeLimitedToNeighbours) {
  PromptClassifier c = classifier(DemonstrationChoice::kRetrieved, 2);
  const Matrix p = c.classify(kTexts, kNeighbours, {}, kNever).value();
  EXPECT_EQ(p.row(0)[0], 1.0f);  // both of the nearest are viewings
  EXPECT_EQ(p.row(1)[0], 0.0f);
  EXPECT_GT(p.row(1)[1], 0.0f);
  EXPECT_GT(p.row(2)[0], 0.0f);  // no neighbours: all labels
  EXPECT_EQ(c.best(kTexts, kNeighbours, {}, kNever).value()[0].label, 0);
}

TEST(PromptClassifier, CalibrationIsUsedByBothWays) {
  PromptClassifier c = classifier(DemonstrationChoice::kNone);
  const std::vector<LabelScores> scores = c.score(kTexts, {}, {}, kNever).value();
  const std::int32_t favourite = arg_max(scores[0]);
  Calibration against{.kind = CalibrationKind::kContentFree, .scores = {.bias = {0, 0, 0}, .norm = {1, 1, 1}}};
  against.scores.bias[static_cast<std::size_t>(favourite)] = 1000;
  c.set_calibration(against);
  const Matrix p = c.classify(kTexts, {}, {}, kNever).value();
  EXPECT_EQ(p.row(0)[static_cast<std::size_t>(favourite)], 0.0f);
  EXPECT_NE(c.best(kTexts, {}, {}, kNever).value()[0].label, favourite);
  std::vector<CalibrationTrial> trials;
  c.calibrate_on(
       scores, [](auto predicted) { return predicted[0] == 2 ? 1.0 : 0.0; }, kNever, &trials)
      .value();
  EXPECT_EQ(trials.size(), 6u);
}

TEST(PromptClassifier, SavedAndLoadedGivesTheSame) {
  const std::filesystem::path dir = testing::test_cache() / "prompt-package";
  for (const DemonstrationChoice choice : {DemonstrationChoice::kNone, DemonstrationChoice::kRetrieved}) {
    std::filesystem::remove_all(dir);
    std::filesystem::create_directories(dir);
    PromptClassifier c = classifier(choice, choice == DemonstrationChoice::kRetrieved ? 2 : 0);
    c.calibrate_on(
         c.score(kTexts, kNeighbours, {}, kNever).value(), [](auto) { return 1.0; }, kNever)
        .value();
    c.save(dir).value();
    PromptClassifier loaded = PromptClassifier::load(dir, scorer()).value();
    EXPECT_EQ(loaded.labels(), kLabels);
    EXPECT_EQ(loaded.classify(kTexts, kNeighbours, {}, kNever).value().data,
              c.classify(kTexts, kNeighbours, {}, kNever).value().data);
  }
  write_file_atomic(dir / "demonstrations.jsonl", "{\"text\": \"x\", \"label\": \"unheard of\"}\n").value();
  expect_error(PromptClassifier::load(dir, scorer()), ErrorCode::kCorruptData, "'unheard of'");
  write_file_atomic(dir / "prompt.json", "{\"format\": 99}").value();
  expect_error(PromptClassifier::load(dir, scorer()), ErrorCode::kCorruptData, "format 99");
  std::filesystem::remove_all(dir);
  expect_error(PromptClassifier::load(dir, scorer()), ErrorCode::kNotFound, "prompt.json");
}

TEST(PromptClassifier, Failures) {
  PromptClassifier c = classifier(DemonstrationChoice::kRetrieved);
  expect_error(c.classify(kTexts, {}, {}, kNever), ErrorCode::kInvalidArgument,
               "4 texts came with the neighbours of 0");
  expect_error(c.classify(kTexts, {{0}, {1}, {2}, {99}}, {}, kNever), ErrorCode::kInvalidArgument, "row 99");
  expect_error(PromptClassifier::make(scorer(), {.demonstrations = -1}, kLabels, {}), ErrorCode::kInvalidArgument,
               "-1");
  expect_error(PromptClassifier::make(scorer(), {}, kLabels, {{"x", 3}}), ErrorCode::kInvalidArgument, "label 3");
  expect_error(PromptClassifier::make(scorer(), {.calibration = {.scores = {.bias = {0}, .norm = {1}}}}, kLabels, {}),
               ErrorCode::kInvalidArgument, "for 1 labels");
}

}  // namespace
}  // namespace tailor
