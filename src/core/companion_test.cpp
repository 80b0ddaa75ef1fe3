#include "core/companion.h"

#include <gtest/gtest.h>

namespace tailor {
namespace {

TEST(Companion, AnswersLineByLine) {
  const auto cat = Companion::start({.command = {"/bin/cat"}}).value();
  EXPECT_EQ(cat->ask("one", CancelToken()).value(), "one");
  const std::string long_line(1 << 20, 'x');  // more than a pipe holds, both ways
  EXPECT_EQ(cat->ask(long_line, CancelToken()).value(), long_line);
  EXPECT_EQ(cat->ask("", CancelToken()).value(), "");
}

TEST(Companion, SpeaksFirst) {
  const auto shell = Companion::start({.command = {"/bin/sh", "-c", "echo ready; exec cat"}}).value();
  EXPECT_EQ(shell->listen(CancelToken()).value(), "ready");
  EXPECT_EQ(shell->ask("more", CancelToken()).value(), "more");
}

TEST(Companion, OneThatIsGoneIsAnError) {
  const auto gone = Companion::start({.command = {"/bin/sh", "-c", "exit 3"}}).value();
  const auto answer = gone->ask("hello", CancelToken());
  ASSERT_FALSE(answer.has_value());
  EXPECT_NE(answer.error().message.find("has ended"), std::string::npos) << answer.error().message;
}

TEST(Companion, AMissingProgramIsAnError) {
  EXPECT_FALSE(Companion::start({.command = {"/nowhere/at/all"}}).has_value());
}

TEST(Companion, CancelledWhileItWaits) {
  const auto silent = Companion::start({.command = {"/bin/sh", "-c", "cat > /dev/null"}, .grace_seconds = 0}).value();
  CancelToken cancel;
  cancel.cancel();
  const auto answer = silent->ask("hello", cancel);
  ASSERT_FALSE(answer.has_value());
  EXPECT_EQ(answer.error().code, ErrorCode::kCancelled);
}

}  // namespace
}  // namespace tailor
