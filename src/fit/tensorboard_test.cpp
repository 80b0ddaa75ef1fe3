#include "fit/tensorboard.h"

#include <gtest/gtest.h>

#include "core/crc32c.h"
#include "core/files.h"
#include "core/json.h"
#include "fit/training_log.h"
#include "model/test_support.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;

std::string hex(std::string_view bytes) {
  std::string out;
  for (const char c : bytes) {
    constexpr std::string_view kDigits = "0123456789abcdef";
    out += kDigits[static_cast<unsigned char>(c) >> 4];
    out += kDigits[static_cast<unsigned char>(c) & 15];
  }
  return out;
}

TEST(Crc32c, GivesTheValuesOfTheStandard) {  // RFC 3720, B.4
  EXPECT_EQ(crc32c("123456789"), 0xE3069283u);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8A9136AAu);
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62A8AB43u);
  EXPECT_EQ(crc32c(""), 0u);
}

// Bytes by TensorBoard's own messages and writer (tests/golden/tensorboard_events.py).
TEST(EventFile, RecordsAreThoseOfTensorBoard) {
  const Json golden = read_json(testing::golden("tensorboard_events.json")).value();
  for (const Json& record : golden.at("records")) {
    const double time = record.at("time");
    std::string made;
    if (record.at("kind") == "version") made = event_file_version(time);
    if (record.at("kind") == "restart") made = event_restart(time, record.at("step"));
    if (record.at("kind") == "scalars") {
      std::vector<std::string> tags;
      for (const Json& value : record.at("values")) tags.push_back(value.at(0));
      std::vector<Scalar> scalars;
      for (std::size_t i = 0; i < tags.size(); ++i)
        scalars.push_back({tags[i], record.at("values").at(i).at(1).get<double>()});
      made = event_scalars(time, record.at("step"), scalars);
    }
    EXPECT_EQ(hex(made), record.at("hex").get<std::string>());
  }
}

TEST(EventFile, ResumingKeepsWholeRecordsUpToTheStep) {
  const Scalar loss[] = {{"train/loss", 1.0}};
  const std::string head = event_file_version(1), one = event_scalars(1, 1, loss), two = event_scalars(1, 200, loss);
  bool changed = false;
  EXPECT_EQ(event_records_up_to(head + one + two, 200, changed), head + one + two);
  EXPECT_FALSE(changed);
  EXPECT_EQ(event_records_up_to(head + one + two, 199, changed), head + one);
  EXPECT_TRUE(changed);
  EXPECT_EQ(event_records_up_to(head + one + two.substr(0, two.size() - 1), 200, changed), head + one);  // killed
  std::string broken = head + one + two;
  broken[head.size() + 20] ^= 1;
  EXPECT_EQ(event_records_up_to(broken, 200, changed), head);
  std::string huge = one;
  huge[7] = '\x7f';  // a length beyond the file
  EXPECT_EQ(event_records_up_to(huge, 200, changed), "");
}

class Log : public ::testing::Test {
 protected:
  TrainingLog log() {
    return TrainingLog(dir_.path(), true, [this] { return ++now_; });
  }
  static Json step(int n, double loss = 1) {
    return {{"event", "step"},    {"step", n},         {"loss", loss},      {"learning_rate", 0.1},
            {"gradient_norm", 2}, {"tokens", 100 * n}, {"seconds", 0.5 * n}};
  }
  std::string bytes() const {
    std::string all;
    for (const auto& entry : fs::directory_iterator(dir_.path() / kTensorboardDirectory))
      all += read_file(entry.path()).value();
    return all;
  }
  static std::size_t times(const std::string& text, const std::string& part) {
    std::size_t n = 0;
    for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
    return n;
  }
  std::vector<int> steps() const {
    std::vector<int> out;
    for (const Json& event : read_training_log(dir_.path())) {
      if (event.at("event") == "step") out.push_back(event.at("step"));
    }
    return out;
  }
  TemporaryDirectory dir_;
  double now_ = 1'700'000'000;
};

TEST_F(Log, AResumedTrainingWritesNoStepTwice) {
  TrainingLog first = log();
  first.add({{"event", "preparing"}, {"rows", 1}}).value();
  first.add({{"event", "start"}, {"resumed_from_step", 0}}).value();
  for (int n = 1; n <= 4; ++n) first.add(step(n)).value();
  first.add({{"event", "evaluation"}, {"step", 2}, {"loss", 1}, {"accuracy", 0.5}}).value();
  append_line(dir_.path() / kTrainLogFile, "{\"event\": \"st").value();  // killed while writing
  {
    std::string log_text = read_file(dir_.path() / kTrainLogFile).value();
    log_text.pop_back();
    write_file_atomic(dir_.path() / kTrainLogFile, log_text).value();
  }
  TrainingLog second = log();
  second.add({{"event", "start"}, {"resumed_from_step", 2}}).value();
  second.add({{"event", "evaluation"}, {"step", 2}, {"loss", 1}, {"accuracy", 0.5}}).value();  // repeated
  for (int n = 3; n <= 5; ++n) second.add(step(n)).value();
  EXPECT_EQ(steps(), (std::vector<int>{1, 2, 3, 4, 5}));
  const std::string all = bytes();
  EXPECT_EQ(times(all, "train/loss"), 5u);
  EXPECT_EQ(times(all, "eval/accuracy"), 1u);
  EXPECT_EQ(times(all, "brain.Event:2"), 2u);
  EXPECT_EQ(times(all, "train/tokens_per_second"), 3u);  // not for the first step of either part, nor for what was lost
  EXPECT_EQ(times(all, std::string("\x10\x03\x3a\x02\x08\x01", 6)), 1u);  // a restart at step 3
}

TEST_F(Log, ARollBackTakesBackWhatCameAfter) {
  TrainingLog log = this->log();
  log.add({{"event", "start"}}).value();
  for (int n = 1; n <= 4; ++n) log.add(step(n)).value();
  log.add({{"event", "evaluation"}, {"step", 4}, {"loss", 9}}).value();
  log.add({{"event", "warning"}, {"step", 4}, {"message", "diverged"}}).value();
  for (int n = 2; n <= 4; ++n) log.add(step(n, 0.5)).value();
  log.add({{"event", "evaluation"}, {"step", 4}, {"loss", 1}}).value();
  EXPECT_EQ(steps(), (std::vector<int>{1, 2, 3, 4}));
  EXPECT_EQ(read_training_log(dir_.path()).back().at("loss"), 1);
  const std::string all = bytes();
  EXPECT_EQ(times(all, "eval/loss"), 2u);
  EXPECT_EQ(times(all, std::string("\x3a\x02\x08\x01", 4)), 1u);  // the restart, by which readers drop the others
}

TEST_F(Log, LossesThatAreNoNumbersAreLeftOut) {
  TrainingLog log = this->log();
  log.add({{"event", "start"}}).value();
  Json skipped = step(1);
  skipped["loss"] = nullptr;
  log.add(skipped).value();
  EXPECT_EQ(times(bytes(), "train/loss"), 0u);
  EXPECT_EQ(times(bytes(), "train/learning_rate"), 1u);
  EXPECT_TRUE(read_training_log(dir_.path() / "none").empty());
}

}  // namespace
}  // namespace tailor
