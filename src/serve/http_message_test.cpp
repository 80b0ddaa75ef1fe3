#include "serve/http_message.h"

#include <gtest/gtest.h>

#include "serve/http_options.h"

namespace tailor {
namespace {

TEST(HttpMessage, QueryParametersAreDecoded) {
  const std::string_view query = "limit=20&name=a+b%2Bc&empty=&flag&bad=%4&limit=3";
  EXPECT_EQ(query_parameter(query, "limit"), "20");
  EXPECT_EQ(query_parameter(query, "name"), "a b+c");
  EXPECT_EQ(query_parameter(query, "empty"), "");
  EXPECT_EQ(query_parameter(query, "flag"), "");
  EXPECT_EQ(query_parameter(query, "bad"), std::nullopt);
  EXPECT_EQ(query_parameter(query, "absent"), std::nullopt);
  EXPECT_EQ(query_parameter("", "limit"), std::nullopt);
  EXPECT_EQ(query_names("a=1&b%20c&&=2&a=3&d+e=&%f"), (std::vector<std::string>{"a", "b c", "d e", "%f"}));
}

TEST(HttpMessage, AnAnswerCannotBreakItsFraming) {
  for (const HttpHeader& bad : {HttpHeader{"X", "a\r\nSet-Cookie: b"}, HttpHeader{"X: y", "a"}, HttpHeader{"", "a"},
                                HttpHeader{"X", std::string("a\0", 2)}}) {
    const PreparedResponse prepared({200, {bad}, "body"});
    EXPECT_EQ(prepared.status(), 500);
    EXPECT_EQ(prepared.body(), "");
    EXPECT_EQ(prepared.head().find("Set-Cookie"), std::string::npos);
  }
  EXPECT_EQ(PreparedResponse({99, {}, ""}).status(), 500);
}

TEST(HttpMessage, LengthAndConnectionAreTheServers) {
  const PreparedResponse prepared(
      {200, {{"content-length", "9"}, {"Transfer-Encoding", "chunked"}, {"Date", "x"}, {"X-A", "b"}}, "body"});
  EXPECT_EQ(prepared.head(), "HTTP/1.1 200 OK\r\nX-A: b\r\nX-Content-Type-Options: nosniff\r\nContent-Length: 4\r\n");
  EXPECT_EQ(PreparedResponse({204, {}, "body"}).head(),
            "HTTP/1.1 204 No Content\r\nX-Content-Type-Options: nosniff\r\n");
}

TEST(HttpMessage, DatesAreInTheFormOfTheStandard) {
  const std::string date(date_field());
  ASSERT_EQ(date.size(), std::string("Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n").size());
  EXPECT_EQ(date.substr(date.size() - 6), " GMT\r\n");
}

TEST(HttpEndpoint, IsReadFromText) {
  const HttpEndpoint v6 = parse_endpoint("[::1]:8080").value();
  EXPECT_EQ(v6.host, "::1");
  EXPECT_EQ(v6.port, 8080);
  EXPECT_EQ(to_string(v6), "[::1]:8080");
  EXPECT_EQ(to_string(parse_endpoint("localhost:0").value()), "localhost:0");
  EXPECT_EQ(parse_endpoint("unix:/run/a.sock").value().unix_path, "/run/a.sock");
  for (const char* bad : {"", "8080", "a", "a:", "a:65536", "a:b", "::1:80", "unix:", "[::1]", "a:-1"}) {
    const auto endpoint = parse_endpoint(bad);
    ASSERT_FALSE(endpoint) << bad;
    EXPECT_NE(endpoint.error().message.find(bad), std::string::npos);
    EXPECT_FALSE(endpoint.error().hint.empty());
  }
}

}  // namespace
}  // namespace tailor
