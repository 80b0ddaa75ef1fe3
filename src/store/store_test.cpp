#include "store/store.h"

#include <sys/stat.h>

#include "store/names.h"
#include "store/random_id.h"
#include "store/schema.h"
#include "store/store_testing.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;

TEST(StoreDirectory, IsPrivate) {
  const TestStore store;
  const fs::path root = store->directory().root();
  for (const fs::path& dir : {root, root / "packages", root / "files", root / "sessions"})
    EXPECT_EQ(fs::status(dir).permissions(), fs::perms(0700)) << dir;
  EXPECT_EQ(fs::status(root / "store.sqlite").permissions(), fs::perms(0600));
}

TEST(StoreDirectory, ClosesAStoreThatStoodOpen) {
  TestStore store;
  const fs::path root = store->directory().root();
  store.store.reset();
  fs::permissions(root, fs::perms(0755));
  store.open();
  EXPECT_EQ(fs::status(root).permissions(), fs::perms(0700));
}

TEST(StoreDirectory, RefusesADirectoryWithOtherThings) {
  const TemporaryDirectory dir;
  write_file_atomic(dir.path() / "thesis.txt", "x").value();
  fs::permissions(dir.path(), fs::perms(0755));
  const auto store = Store::open(dir.path());
  ASSERT_FALSE(store);
  EXPECT_EQ(store.error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(fs::status(dir.path()).permissions(), fs::perms(0755));
  EXPECT_EQ(entries(dir.path()), 1U);
}

TEST(StoreDirectory, TakesAFreshVolume) {
  const TemporaryDirectory dir;
  fs::create_directory(dir.path() / "lost+found");
  EXPECT_TRUE(Store::open(dir.path()));
}

TEST(StoreDirectory, MustExistMakesNothing) {
  const TemporaryDirectory dir;
  EXPECT_EQ(Store::open(dir.path() / "none", {.must_exist = true}).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(entries(dir.path()), 0U);
}

TEST(StoreDirectory, RemovesWhatTheDeadLeftAndNothingOfTheLiving) {
  TestStore store;
  const fs::path root = store->directory().root();
  make_directories(root / "sessions" / "session-dead" / "half").value();
  make_directories(root / "packages" / "unknown" / "1").value();
  const fs::path mine = store->directory().staging();
  write_file_atomic(mine, "being written").value();
  const auto other = Store::open(root).value();
  EXPECT_FALSE(fs::exists(root / "sessions" / "session-dead"));
  EXPECT_TRUE(fs::exists(mine));
  EXPECT_TRUE(fs::exists(root / "packages" / "unknown" / "1")) << "nobody said that this is unfinished";
  EXPECT_TRUE(other->directory().session_alive(store->directory().session()));
  EXPECT_EQ(other->directory().other_sessions().value(), std::vector{store->directory().session()});
  const std::string session = store->directory().session();
  store.store.reset();
  EXPECT_FALSE(other->directory().session_alive(session));
  EXPECT_TRUE(other->directory().other_sessions().value().empty());
  EXPECT_EQ(entries(root / "sessions"), 1U);
}

TEST(StoreDirectory, AForgedListOfUnfinishedPathsLeadsNowhere) {
  TestStore store;
  const fs::path victim = store.dir.path() / "victim";
  write_file_atomic(victim, "x").value();
  {
    Transaction transaction = store->database().write().value();
    transaction.run("INSERT INTO intents VALUES ('../victim', 'session-dead')").value();
    transaction.commit().value();
  }
  const auto again = Store::open(store->directory().root());
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code, ErrorCode::kCorruptData);
  EXPECT_TRUE(fs::exists(victim));
}

TEST(Store, AnOlderOneIsTakenOver) {
  const TemporaryDirectory dir;
  const fs::path root = dir.path() / "store";
  {
    fs::create_directory(root);
    const Database older = Database::open(root / "store.sqlite", store_migrations().first(3)).value();
    Transaction transaction = older.write().value();
    transaction
        .run(
            "INSERT INTO files(id, owner, purpose, filename, bytes, sha256, created_at, status, status_details) "
            "VALUES ('file-1', 'k', 'batch', 'a', 9000, '', 1, 'uploaded', '')")
        .value();
    transaction
        .run(
            "INSERT INTO batches(id, owner, status, endpoint, input_file, completion_window, created_at, expires_at, "
            "metadata) VALUES ('batch_1', 'k', 'validating', '/v1/completions', 'file-1', '24h', 1, 2, '{}')")
        .value();
    transaction.commit().value();
  }
  const auto store = Store::open(root).value();
  FileWriter writer = store->files().begin("b", "batch", "k", 10'000).value();
  writer.write("x").value();
  EXPECT_FALSE(writer.commit()) << "its files count";
  EXPECT_EQ(store->batches().take_next().value()->id, "batch_1");
  EXPECT_FALSE(store->batches().give_back("batch_1").value());
}

TEST(Names, FollowTheRule) {
  for (const char* good : {"a", "model-1.2", "ft:base:org:suffix:id", "name@v1", "_x", "9"})
    EXPECT_TRUE(check_name(good, "name")) << good;
  for (const std::string& bad : {std::string(), std::string("."), std::string(".."), std::string("a..b"),
                                 std::string("a/b"), std::string("a b"), std::string("a\0b", 3), std::string("-rf"),
                                 std::string(".hidden"), std::string("\xC3\xA4"), std::string(129, 'a')}) {
    const Status status = check_name(bad, "name");
    ASSERT_FALSE(status) << bad;
    EXPECT_EQ(status.error().code, ErrorCode::kInvalidArgument);
    for (const char c : status.error().message) EXPECT_GE(static_cast<unsigned char>(c), 0x20);
  }
  EXPECT_TRUE(check_label("Käthe's laptop", "name"));
  for (const char* bad : {"", "a\nb", "\x1B[31m", "\xFF"}) EXPECT_FALSE(check_label(bad, "name"));
}

TEST(RandomId, DrawsFromTheWholeAlphabet) {
  const std::string id = random_id("x-", 4000);
  EXPECT_EQ(id.size(), 4002U);
  EXPECT_EQ(id.substr(0, 2), "x-");
  for (const char c : std::string_view("09AZaz")) EXPECT_NE(id.find(c, 2), std::string::npos) << c;
  EXPECT_NE(random_id("", 16), random_id("", 16));
}

}  // namespace
}  // namespace tailor
