#include "store/database.h"

#include <sys/stat.h>

#include <array>
#include <filesystem>
#include <fstream>

#include "store/store_testing.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;

constexpr std::array<std::string_view, 1> kOne = {"CREATE TABLE t(id INTEGER PRIMARY KEY, x BLOB) STRICT;"};
constexpr std::array<std::string_view, 2> kTwo = {kOne[0], "CREATE TABLE u(t INTEGER REFERENCES t(id)) STRICT;"};

struct DatabaseTest : testing::Test {
  TemporaryDirectory dir;
  fs::path file = dir.path() / "db.sqlite";

  Database open(std::span<const std::string_view> migrations = kOne) const {
    return Database::open(file, migrations).value();
  }
  static void insert(const Database& database, std::string_view bytes) {
    Transaction transaction = database.write().value();
    transaction.run("INSERT INTO t(x) VALUES (?)", {Blob{bytes}}).value();
    transaction.commit().value();
  }
  static std::int64_t number(const Database& database, std::string_view sql) {
    Transaction transaction = database.read().value();
    std::int64_t value = -1;
    transaction
        .first(sql, {},
               [&](const Row& row) -> Status {
                 value = row.integer(0);
                 return {};
               })
        .value();
    return value;
  }
};

TEST_F(DatabaseTest, IsPrivateAndSafeByItsSettings) {
  const Database database = open(kTwo);
  insert(database, "x");
  for (const char* suffix : {"", "-wal", "-shm"}) {
    struct stat info {};
    ASSERT_EQ(::stat((file.string() + suffix).c_str(), &info), 0) << suffix;
    EXPECT_EQ(info.st_mode & 0777, 0600U) << suffix;
  }
  EXPECT_EQ(number(database, "PRAGMA synchronous"), 2);
  EXPECT_EQ(number(database, "PRAGMA foreign_keys"), 1);
  Transaction transaction = database.write().value();
  EXPECT_EQ(transaction.run("INSERT INTO u VALUES (99)").error().code, ErrorCode::kInvalidArgument);
}

TEST_F(DatabaseTest, TightensAFileThatOthersCanRead) {
  std::ignore = open();
  fs::permissions(file, fs::perms(0644));
  std::ignore = open();
  EXPECT_EQ(fs::status(file).permissions(), fs::perms(0600));
}

TEST_F(DatabaseTest, WhatIsNotCommittedIsGone) {
  const Database database = open();
  {
    Transaction transaction = database.write().value();
    transaction.run("INSERT INTO t(x) VALUES (x'00')").value();
  }
  EXPECT_EQ(number(database, "SELECT count(*) FROM t"), 0);
  insert(database, "kept");
  EXPECT_EQ(number(database, "SELECT count(*) FROM t"), 1);
}

TEST_F(DatabaseTest, AReaderCannotWrite) {
  const Database database = open();
  Transaction transaction = database.read().value();
  EXPECT_EQ(transaction.run("DELETE FROM t").error().code, ErrorCode::kInternal);
}

TEST_F(DatabaseTest, BytesComeBackAsTheyWere) {
  const Database database = open();
  for (const std::string_view bytes :
       {std::string_view(""), std::string_view("a\0b", 3), std::string_view("\xFF'--")}) {
    insert(database, bytes);
    Transaction transaction = database.read().value();
    std::string found = "nothing";
    transaction
        .first("SELECT x FROM t ORDER BY id DESC", {},
               [&](const Row& row) -> Status {
                 EXPECT_FALSE(row.null(0));
                 found = row.text(0);
                 return {};
               })
        .value();
    EXPECT_EQ(found, bytes);
  }
}

TEST_F(DatabaseTest, AnErrorOfTheSinkEndsTheWalk) {
  const Database database = open();
  for (int i = 0; i < 3; ++i) insert(database, "x");
  Transaction transaction = database.read().value();
  int seen = 0;
  const Status status = transaction.each("SELECT id FROM t", {}, [&](const Row&) -> Status {
    if (++seen == 2) return Error{ErrorCode::kCancelled, "enough", ""};
    return {};
  });
  EXPECT_EQ(status.error().message, "enough");
  EXPECT_EQ(seen, 2);
}

TEST_F(DatabaseTest, MigratesForwardAndKeepsTheRows) {
  insert(open(kOne), "old");
  const Database database = open(kTwo);
  EXPECT_EQ(number(database, "SELECT count(*) FROM t"), 1);
  EXPECT_EQ(number(database, "SELECT count(*) FROM u"), 0);
  EXPECT_EQ(number(database, "PRAGMA user_version"), 2);
}

TEST_F(DatabaseTest, AFailedMigrationChangesNothing) {
  insert(open(kOne), "old");
  const std::array<std::string_view, 3> broken = {kOne[0], "CREATE TABLE u(x) ;", "CREATE TABLE nonsense("};
  ASSERT_FALSE(Database::open(file, broken));
  const Database database = open(kOne);
  EXPECT_EQ(number(database, "PRAGMA user_version"), 1);
  EXPECT_EQ(number(database, "SELECT count(*) FROM sqlite_schema WHERE name = 'u'"), 0);
}

TEST_F(DatabaseTest, RefusesANewerLayoutAndLeavesItAlone) {
  insert(open(kTwo), "new");
  const std::string before = read_file(file).value();
  const auto older = Database::open(file, kOne);
  ASSERT_FALSE(older);
  EXPECT_EQ(older.error().code, ErrorCode::kUnavailable);
  EXPECT_NE(older.error().message.find("its layout is 2, this version knows 1"), std::string::npos);
  EXPECT_EQ(read_file(file).value(), before);
}

TEST_F(DatabaseTest, RefusesWhatIsNotOurs) {
  write_file_atomic(file, std::string(8192, 'x')).value();
  EXPECT_EQ(Database::open(file, kOne).error().code, ErrorCode::kCorruptData);
  fs::remove(file);
  {
    const Database database = open();
    Transaction transaction = database.write().value();
    transaction.run("PRAGMA application_id = 42").value();
    transaction.commit().value();
  }
  const auto other = Database::open(file, kOne);
  ASSERT_FALSE(other);
  EXPECT_NE(other.error().message.find("another program"), std::string::npos);
  fs::create_symlink(file, dir.path() / "link");
  EXPECT_EQ(Database::open(dir.path() / "link", kOne).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(Database::open(dir.path() / "absent", kOne, {.must_exist = true}).error().code, ErrorCode::kNotFound);
}

TEST_F(DatabaseTest, NamesDamage) {
  {
    const Database database = open();
    for (int i = 0; i < 200; ++i) insert(database, std::string(1000, 'x'));
    EXPECT_TRUE(database.check_integrity());
  }
  {
    std::fstream bytes(file, std::ios::in | std::ios::out | std::ios::binary);
    bytes.seekp(5 * 4096);
    bytes << std::string(4096, '\x7F');
  }
  const Status status = open().check_integrity();
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kCorruptData);
  EXPECT_NE(status.error().message.find(file.string()), std::string::npos);
}

TEST_F(DatabaseTest, ASecondWriterIsToldThatTheStoreIsHeld) {
  const Database first = open();
  const Database second = Database::open(file, kOne, {.busy_timeout_ms = 1}).value();
  const Transaction held = first.write().value();
  EXPECT_EQ(second.write().error().code, ErrorCode::kUnavailable);
  EXPECT_TRUE(second.read());
}

TEST_F(DatabaseTest, AFullDiskIsAnErrorAndNothingIsHalfWritten) {
  const Database database = open();
  insert(database, "before");
  ErrorCode code = ErrorCode::kInternal;
  {
    const FullDisk full(128 << 10);
    Transaction transaction = database.write().value();
    const auto inserted = transaction.run("INSERT INTO t(x) VALUES (zeroblob(1000000))");
    const Status committed = inserted ? transaction.commit() : Status(inserted.error());
    if (!committed) code = committed.error().code;
  }
  EXPECT_EQ(code, ErrorCode::kIo);
  EXPECT_EQ(number(database, "SELECT count(*) FROM t"), 1);
  insert(database, "after");
  EXPECT_EQ(number(database, "SELECT count(*) FROM t"), 2);
  EXPECT_TRUE(database.check_integrity());
}

TEST_F(DatabaseTest, AFullDatabaseIsAFullDisk) {
  const Database database = open();
  Transaction transaction = database.write().value();
  transaction.run("PRAGMA max_page_count = 20").value();
  transaction.run("INSERT INTO t(x) VALUES (x'00')").value();
  const auto inserted = transaction.run("INSERT INTO t(x) VALUES (zeroblob(1000000))");
  ASSERT_FALSE(inserted);
  EXPECT_EQ(inserted.error().code, ErrorCode::kIo);
  EXPECT_NE(inserted.error().hint.find("disk space"), std::string::npos);
  EXPECT_FALSE(transaction.commit()) << "the first row must not be kept alone";
}

}  // namespace
}  // namespace tailor
