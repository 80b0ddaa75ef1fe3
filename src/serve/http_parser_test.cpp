#include "serve/http_parser.h"

#include <gtest/gtest.h>

#include "serve/http_target.h"
#include "serve/test_parse.h"

namespace tailor::test {
namespace {

std::string get(std::string_view fields) {
  return "GET / HTTP/1.1\r\n" + std::string(fields) + "\r\n";
}

TEST(HttpParser, ReadsAHead) {
  const Parsed parsed =
      parse("GET /v1/models%20x?limit=3&q=%2F HTTP/1.1\r\nHost: Example.com:8080\r\nX-A:  one two \t\r\nx-a:\r\n\r\n");
  EXPECT_EQ(parsed.status, 0);
  EXPECT_TRUE(parsed.complete);
  EXPECT_TRUE(parsed.keep_alive);
  EXPECT_EQ(parsed.head.method, "GET");
  EXPECT_EQ(parsed.head.path, "/v1/models x");
  EXPECT_EQ(parsed.head.query, "limit=3&q=%2F");
  EXPECT_EQ(parsed.head.host, "example.com");
  EXPECT_EQ(parsed.head.port, "8080");
  EXPECT_EQ(*parsed.head.headers.find("X-a"), "one two");
  EXPECT_EQ(parsed.head.headers.count("X-A"), 2U);
  EXPECT_EQ(parsed.head.headers.find("absent"), nullptr);
  EXPECT_FALSE(parsed.head.content_length);
}

TEST(HttpParser, SlashesAreEncodedWithinNamesAlone) {
  const std::string_view names[] = {"/names/"};
  const auto path = [&](std::string_view target) {
    const auto read = parse_http_target("GET", target, names);
    return read.has_value() ? read->path : "refused";
  };
  EXPECT_EQ(path("/names/a%2Fb"), "/names/a/b");
  EXPECT_EQ(path("http://host/names/a%2fb?q=%2F"), "/names/a/b");
  EXPECT_EQ(path("/names%2Fa"), "refused");
  EXPECT_EQ(path("/other/a%2Fb"), "refused");
  EXPECT_EQ(path("/names/a%2F..%2Fb"), "refused");
  EXPECT_EQ(path("/names/%2E%2E%2Fb"), "refused");
  EXPECT_EQ(path("/names/a%5Cb"), "refused");
}

TEST(HttpParser, ReadsBodiesInAnyCut) {
  const std::string chunked =
      "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n5;name=v;flag\r\nhello\r\n00a\r\n0123456789\r\n"
      "0\r\nTrailer: dropped\r\n\r\n";
  for (std::size_t cut = 0; cut < 40; ++cut) {
    const Parsed plain = parse("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET", cut);
    EXPECT_TRUE(plain.complete) << cut;
    EXPECT_EQ(plain.body, "hello");
    EXPECT_EQ(plain.head.content_length, 5U);
    const Parsed parsed = parse(chunked + "GET /next", cut);
    EXPECT_TRUE(parsed.complete) << cut;
    EXPECT_EQ(parsed.body, "hello0123456789") << cut;
    EXPECT_EQ(parsed.consumed, chunked.size()) << cut;
    EXPECT_EQ(parsed.head.headers.find("Trailer"), nullptr);
  }
}

struct Refused {
  const char* name;
  std::string bytes;
  int status;
};

std::vector<Refused> refused_heads() {
  const std::string nul("X: a\0b\r\n", 8);
  return {
      {"length and coding", get("Host: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n"), 400},
      {"coding and length", get("Host: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n"), 400},
      {"two lengths", get("Host: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n"), 400},
      {"the same length twice", get("Host: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n"), 400},
      {"a list of lengths", get("Host: a\r\nContent-Length: 3, 3\r\n"), 400},
      {"a signed length", get("Host: a\r\nContent-Length: +3\r\n"), 400},
      {"a negative length", get("Host: a\r\nContent-Length: -3\r\n"), 400},
      {"a hexadecimal length", get("Host: a\r\nContent-Length: 0x3\r\n"), 400},
      {"no length", get("Host: a\r\nContent-Length:\r\n"), 400},
      {"a huge length", get("Host: a\r\nContent-Length: 18446744073709551617\r\n"), 400},
      {"an unknown coding", get("Host: a\r\nTransfer-Encoding: gzip\r\n"), 400},
      {"a list of codings", get("Host: a\r\nTransfer-Encoding: gzip, chunked\r\n"), 400},
      {"chunked not last", get("Host: a\r\nTransfer-Encoding: chunked, identity\r\n"), 400},
      {"two codings", get("Host: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), 400},
      {"a coding with a vertical tab", get("Host: a\r\nTransfer-Encoding: \vchunked\r\n"), 400},
      {"chunks in 1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
      {"a folded field", get("Host: a\r\nX: 1\r\n 2\r\n"), 400},
      {"a folded field with a tab", get("Host: a\r\nX: 1\r\n\tY: 2\r\n"), 400},
      {"a first field that is folded", get(" Host: a\r\n"), 400},
      {"a bare LF after the request line", "GET / HTTP/1.1\nHost: a\r\n\r\n", 400},
      {"a bare LF after a field", "GET / HTTP/1.1\r\nHost: a\nX: 1\r\n\r\n", 400},
      {"a bare LF at the end", "GET / HTTP/1.1\r\nHost: a\r\n\n", 400},
      {"a bare CR", get("Host: a\r\nX: a\rb\r\n"), 400},
      {"a NUL", get("Host: a\r\n" + nul), 400},
      {"a control character",
       get("Host: a\r\nX: a\x01"
           "b\r\n"),
       400},
      {"a DEL", get("Host: a\r\nX: a\x7f\r\n"), 400},
      {"a space before the colon", get("Host: a\r\nContent-Length : 3\r\n"), 400},
      {"a tab before the colon", get("Host: a\r\nX\t: 3\r\n"), 400},
      {"a field without a colon", get("Host: a\r\nX\r\n"), 400},
      {"a field without a name", get("Host: a\r\n: x\r\n"), 400},
      {"a name that is no token", get("Host: a\r\nX(Y): 1\r\n"), 400},
      {"a name beyond ASCII", get("Host: a\r\nX\xC3\xA4: 1\r\n"), 400},
      {"no host", get("X: 1\r\n"), 400},
      {"two hosts", get("Host: a\r\nHost: a\r\n"), 400},
      {"an empty host", get("Host:\r\n"), 400},
      {"a host with a path", get("Host: a/b\r\n"), 400},
      {"a host with a user", get("Host: u@a\r\n"), 400},
      {"a host with a space", get("Host: a b\r\n"), 400},
      {"a host with a bad port", get("Host: a:8o\r\n"), 400},
      {"another host in the target", "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"an absolute target without Host", "GET http://b/ HTTP/1.0\r\n\r\n", 400},
      {"a path without a slash", "GET index HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"another scheme", "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"a star with GET", "GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"a fragment", "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"a parent segment", "GET /a/../b HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"an encoded parent segment", "GET /a/%2e%2E HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"an encoded slash", "GET /a%2fb HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"an encoded slash within a name of another path", "GET /v1/models%2fa HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"an encoded NUL", "GET /a%00 HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"an encoded backslash", "GET /a%5c..%5c HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"half a percent-encoding", "GET /a%4 HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"a raw byte in the target", "GET /\xC3\xA4 HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"a space in the target", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"two spaces", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"no target", "GET HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"HTTP/0.9", "GET /\r\n", 400},
      {"an empty line first", "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"a space first", " GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"TLS at a plain port", std::string("\x16\x03\x01\x02\x00", 5), 400},
      {"the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505},
      {"HTTP/1.2", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505},
      {"HTTP/3.0", "GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505},
      {"no version", "GET / HTTP/x.1\r\nHost: a\r\n\r\n", 400},
      {"a version in lower case", "GET / http/1.1\r\nHost: a\r\n\r\n", 400},
      {"CONNECT", "CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 501},
      {"a method in lower case", "get / HTTP/1.1\r\nHost: a\r\n\r\n", 501},
      {"another expectation", get("Host: a\r\nExpect: the-best\r\n"), 417},
  };
}

TEST(HttpParser, RefusesWhatParsersReadDifferently) {
  for (const Refused& refused : refused_heads()) {
    EXPECT_EQ(parse(refused.bytes).status, refused.status) << refused.name;
    EXPECT_EQ(parse(refused.bytes, 1).status, refused.status) << refused.name << ", byte by byte";
    EXPECT_FALSE(check_request_head(refused.bytes)) << refused.name;
  }
}

TEST(HttpParser, AcceptsWhatIsRareButRight) {
  const std::string good[] = {
      "GET / HTTP/1.0\r\n\r\n",
      "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
      "GET http://A:80/x?y HTTP/1.1\r\nHost: a:80\r\n\r\n",
      "GET https://a HTTP/1.1\r\nHost: a\r\n\r\n",
      "GET / HTTP/1.1\r\nHost: [2001:DB8::1]:443\r\n\r\n",
      "DELETE /v1/files/a..b HTTP/1.1\r\nHost: a_b.c-d\r\n\r\n",
      "GET / HTTP/1.1\r\nHost:a\r\nX: caf\xC3\xA9\ttab\r\n\r\n",
      "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nExpect: 100-Continue\r\n\r\n",
  };
  for (const std::string& head : good) {
    EXPECT_TRUE(check_request_head(head)) << head;
    EXPECT_TRUE(parse(head, 1).complete) << head;
  }
  EXPECT_EQ(parse(good[2]).head.path, "/x");
  EXPECT_EQ(parse(good[3]).head.path, "/");
  EXPECT_EQ(parse(good[4]).head.host, "2001:db8::1");
}

TEST(HttpParser, RefusesBadChunks) {
  const std::string head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
  const std::string bad[] = {
      "\r\n",
      "x\r\n",
      "-1\r\n",
      "0x5\r\nhello\r\n0\r\n\r\n",
      " 5\r\nhello\r\n0\r\n\r\n",
      "5 \r\nhello\r\n0\r\n\r\n",
      "5\nhello\r\n0\r\n\r\n",
      "5\r\nhello\n0\r\n\r\n",
      "5\r\nhelloo\r\n0\r\n\r\n",
      "5\r\nhell\r\n0\r\n\r\n",
      "00000000000000005\r\nhello\r\n0\r\n\r\n",
      "fffffffffffffffff\r\n",
      "5;a\nb\r\nhello\r\n0\r\n\r\n",
      "5;\r\nhello\r\n0\r\n\r\n",
      "5;a=\r\nhello\r\n0\r\n\r\n",
      "5;a=b=c\r\nhello\r\n0\r\n\r\n",
      "5;a=\"\r\n\"\r\nhello\r\n0\r\n\r\n",
      "5; a=b\r\nhello\r\n0\r\n\r\n",
      "5;" + std::string(300, 'a') + "\r\nhello\r\n0\r\n\r\n",
      "0\r\nno field\r\n\r\n",
      "0\r\nA : b\r\n\r\n",
      "0\r\nA: b\r\n folded\r\n\r\n",
      "0\r\n\n",
      "0\r\nA: b\n\r\n",
      "0\r\nA: " + std::string(17 << 10, 'a') + "\r\n\r\n",
  };
  for (const std::string& body : bad) {
    for (const std::size_t cut : {0, 1, 7}) {
      const Parsed parsed = parse(head + body, cut);
      EXPECT_EQ(parsed.status, 400) << body << " in pieces of " << cut;
      EXPECT_FALSE(parsed.complete) << body;
    }
  }
  std::string many;
  for (int i = 0; i < 100; ++i) many += "1;" + std::string(100, 'a') + "\r\nx\r\n";
  EXPECT_EQ(parse(head + many + "0\r\n\r\n").status, 400) << "extensions without end";
}

TEST(HttpParser, HoldsItsLimits) {
  const HttpParserLimits limits{.header_bytes = 256, .header_count = 3, .target_bytes = 64};
  const auto status = [&](const std::string& bytes) { return parse(bytes, 1, limits).status; };
  const std::string host = "Host: a\r\n";
  EXPECT_EQ(status("GET /" + std::string(63, 'a') + " HTTP/1.1\r\n" + host + "\r\n"), 0);
  EXPECT_EQ(status("GET /" + std::string(64, 'a') + " HTTP/1.1\r\n" + host + "\r\n"), 414);
  EXPECT_EQ(status("GET /" + std::string(1000, 'a')), 414) << "without an end";
  EXPECT_EQ(status(get(host + "A: 1\r\nB: 2\r\n")), 0);
  EXPECT_EQ(status(get(host + "A: 1\r\nB: 2\r\nC: 3\r\n")), 431);
  const std::string frame = get(host + "A: \r\n");
  EXPECT_EQ(status(get(host + "A: " + std::string(256 - frame.size(), 'a') + "\r\n")), 0);
  EXPECT_EQ(status(get(host + "A: " + std::string(257 - frame.size(), 'a') + "\r\n")), 431);
  EXPECT_EQ(status("GET / HTTP/1.1\r\nA: " + std::string(1000, 'a')), 431) << "without an end";
  EXPECT_EQ(parse(get(host + "A: " + std::string(1000, 'a') + "\r\n"), 0, limits).status, 431) << "at once";
  EXPECT_EQ(status(std::string(1000, 'A')), 400) << "no method is so long";
}

TEST(HttpParser, KnowsWhenTheConnectionStays) {
  const auto stays = [](const std::string& bytes) { return parse(bytes).keep_alive; };
  EXPECT_TRUE(stays(get("Host: a\r\n")));
  EXPECT_FALSE(stays(get("Host: a\r\nConnection: Close\r\n")));
  EXPECT_FALSE(stays(get("Host: a\r\nConnection: keep-alive, close\r\n")));
  EXPECT_FALSE(stays(get("Host: a\r\nConnection: x\r\nConnection: close\r\n")));
  EXPECT_FALSE(stays("GET / HTTP/1.0\r\n\r\n"));
  EXPECT_TRUE(stays("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"));
}

TEST(HttpTarget, SplitsAndDecodes) {
  const auto target = parse_http_target("GET", "/a%2Bb/%C3%A4+?x=%zz").value();
  EXPECT_EQ(target.path, "/a+b/\xC3\xA4+");
  EXPECT_EQ(target.query, "x=%zz");
  EXPECT_EQ(parse_http_target("GET", "/a.../.b").value().path, "/a.../.b");
  EXPECT_FALSE(parse_http_target("GET", "/./b"));
  EXPECT_FALSE(parse_http_target("GET", ""));
}

}  // namespace
}  // namespace tailor::test
