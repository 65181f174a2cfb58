"""The pages in a real browser."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service.report.render import render
from service.server import create
from tests.service.callers import make_tokens
from tests.service.report.made import profiled
from tests.service.server_harness import worker_command
from tests.service.web.browser import PALE_TEXTS, open_browser, set_theme, set_width
from tests.service.web.test_pages import HOSTILE, stored
from tests.service.web.visiting import showing, shown_settings, stored_result, stored_waiting

HOSTILE_PAGE = (
    "<script>window.parent.hacked = true; document.title = 'hacked'</script><img src=x onerror='parent.hacked=1'>"
)


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    with open_browser() as found:
        yield found


@pytest.fixture(autouse=True)
def fresh(driver: Any) -> None:
    driver.get("about:blank")
    driver.execute_cdp_cmd("Network.clearBrowserCookies", {})
    driver.get_log("browser")
    set_width(driver, 1280)
    set_theme(driver, "light")


def seen(driver: Any, condition: Callable[[], Any], seconds: float = 30) -> Any:
    """What a condition comes to once it holds; elements may be replaced meanwhile."""
    from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
    from selenium.webdriver.support.wait import WebDriverWait

    ignored = (NoSuchElementException, StaleElementReferenceException)
    return WebDriverWait(driver, seconds, 0.05, ignored).until(lambda _: condition())


def find(driver: Any, selector: str) -> Any:
    return driver.find_element("css selector", selector)


def problems(driver: Any) -> list[str]:
    """What the browser complains of: violated policies, scripts that failed."""
    return [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]


async def test_from_the_list_to_a_job_and_its_report(tmp_path: Path, driver: Any) -> None:
    settings = shown_settings(tmp_path)
    stored_result(settings, "night run", html=render(profiled()) + HOSTILE_PAGE)

    def look(base: str) -> None:
        driver.get(base)
        find(driver, ".jobs a").click()
        seen(driver, lambda: find(driver, "h1").text == "night run")
        assert "Budget met" in find(driver, ".band").text
        find(driver, ".button").click()
        frame = seen(driver, lambda: find(driver, "iframe"))
        driver.switch_to.frame(frame)
        seen(driver, lambda: "Layer by layer" in find(driver, "nav").text)
        assert find(driver, ".verdict").value_of_css_property("border-left-width") == "5px", "its own style counts"
        driver.switch_to.default_content()
        assert driver.execute_script("return window.hacked") is None
        assert driver.title == "Report of night run (Shoal)"
        addresses = driver.execute_script("return performance.getEntriesByType('resource').map((one) => one.name)")
        assert addresses
        assert all(address.startswith((base, "data:")) for address in addresses), addresses

    async with showing(settings) as shown:
        await asyncio.to_thread(look, f"http://127.0.0.1:{shown.visitor.port}/")
    assert all("frame" in problem and "script" in problem for problem in problems(driver)), "only the report's scripts"


async def test_progress_moves_without_a_reload_until_the_job_is_over(tmp_path: Path, driver: Any) -> None:
    go, page = tmp_path / "go", tmp_path / "page.html"
    page.write_text("<p>done</p>")
    command = worker_command("paced", str(go), str(page), "epoch <b>1</b>")
    settings = shown_settings(tmp_path, worker_command=command, progress_interval=0.1)
    job = stored_waiting(settings, "slow")

    def look(base: str) -> None:
        driver.get(f"{base}/jobs/{job}")
        driver.execute_script("window.loadedOnce = true")
        share = seen(driver, lambda: float(find(driver, "[data-live] progress").get_attribute("value")))
        seen(driver, lambda: float(find(driver, "[data-live] progress").get_attribute("value")) > share + 3)
        assert "epoch <b>1</b>" in seen(driver, lambda: find(driver, ".now .message").text)
        seen(driver, lambda: find(driver, ".numbers polyline"))
        assert "%" in driver.title
        go.touch()
        seen(driver, lambda: "Budget met" in find(driver, ".band").text)
        assert "Succeeded" in find(driver, "[data-log]").text
        assert driver.execute_script("return window.loadedOnce") is True
        assert not find(driver, ".notice").is_displayed()

    async with showing(settings) as shown:
        await asyncio.to_thread(look, f"http://127.0.0.1:{shown.visitor.port}")
    assert problems(driver) == []


async def test_the_list_follows_what_happens(tmp_path: Path, driver: Any) -> None:
    go, page = tmp_path / "go", tmp_path / "page.html"
    page.write_text("<p>done</p>")
    settings = shown_settings(tmp_path, worker_command=worker_command("paced", str(go), str(page), "epoch"))
    stored_waiting(settings, "slow")

    def look(base: str) -> None:
        driver.get(f"{base}/jobs")
        driver.execute_script("window.loadedOnce = true")
        seen(driver, lambda: "Running" in find(driver, ".jobs").text)
        go.touch()
        seen(driver, lambda: "Budget met" in find(driver, ".jobs").text)
        assert driver.execute_script("return window.loadedOnce") is True

    async with showing(settings) as shown:
        await asyncio.to_thread(look, f"http://127.0.0.1:{shown.visitor.port}")


async def test_signing_in_and_out(tmp_path: Path, driver: Any) -> None:
    settings = shown_settings(tmp_path)
    (token,) = make_tokens(settings, "alice")

    def sign(text: str) -> None:
        field = find(driver, "#token")
        assert driver.switch_to.active_element == field
        field.send_keys(text, "\n")

    def look(base: str) -> None:
        driver.get(f"{base}/devices")
        assert find(driver, "label[for=token]").text == "Token"
        sign("wrong")
        assert "Nobody has this token" in seen(driver, lambda: find(driver, "[role=alert]").text)
        sign(token)
        seen(driver, lambda: find(driver, "h1").text == "Devices")
        (cookie,) = driver.get_cookies()
        assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
        assert token not in json.dumps(cookie)
        assert driver.execute_script("return document.cookie") == ""
        find(driver, ".who button").click()
        seen(driver, lambda: find(driver, "h1").text == "Sign in")
        driver.get(f"{base}/devices")
        assert find(driver, "h1").text == "Sign in"

    async with showing(settings) as shown:
        await asyncio.to_thread(look, f"http://127.0.0.1:{shown.visitor.port}")


async def test_names_and_messages_of_strangers_do_nothing(tmp_path: Path, driver: Any) -> None:
    settings = shown_settings(tmp_path)
    hostile = "<script>hacked=1</script><img src=x onerror=hacked=1>"
    (failed,) = stored(settings, HOSTILE)
    (done,) = stored_result(settings, hostile, html=HOSTILE_PAGE, filename=hostile)

    def look(base: str) -> None:
        for path in ("/jobs", f"/jobs/{failed}", f"/jobs/{done}", f"/jobs/{done}/report", f"/jobs/{done}/report/frame"):
            driver.get(base + path)
            # An alert would end this call with an error.
            assert driver.execute_script("return window.hacked") is None, path
            assert driver.title != "hacked"
        driver.get(f"{base}/jobs/{done}")
        assert find(driver, "h1").text == hostile

    async with showing(settings) as shown:
        await asyncio.to_thread(look, f"http://127.0.0.1:{shown.visitor.port}")


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_pages_can_be_read_in_any_light_and_on_a_narrow_screen(tmp_path: Path, driver: Any, theme: str) -> None:
    settings = shown_settings(tmp_path)
    (failed,) = stored(settings, "a_rather_long_name_without_a_space_" * 5)
    (done,) = stored_result(settings, "night run")

    def look(base: str) -> None:
        set_theme(driver, theme)
        for path in ("/jobs", f"/jobs/{failed}", f"/jobs/{done}", f"/jobs/{done}/report", "/devices", "/nowhere"):
            for width in (1280, 360):
                set_width(driver, width)
                driver.get(base + path)
                assert driver.execute_script("return document.documentElement.scrollWidth") <= width, (path, width)
                assert driver.execute_script(PALE_TEXTS) == [], path

    async with showing(settings) as shown:
        await asyncio.to_thread(look, f"http://127.0.0.1:{shown.visitor.port}")


async def test_the_keyboard_gets_everywhere(tmp_path: Path, driver: Any) -> None:
    settings = shown_settings(tmp_path)
    stored_result(settings, "night run")

    def look(base: str) -> None:
        from selenium.webdriver.common.keys import Keys

        driver.get(f"{base}/jobs")
        reached = []
        for _ in range(11):
            find(driver, "body").send_keys(Keys.TAB) if not reached else driver.switch_to.active_element.send_keys(
                Keys.TAB
            )
            focused = driver.switch_to.active_element
            reached.append(focused.text)
            if len(reached) > 1:
                assert focused.value_of_css_property("outline-style") == "solid", reached
        assert reached[0] == "To the content"
        assert reached[-1] == "night run"
        driver.switch_to.active_element.send_keys("\n")
        seen(driver, lambda: find(driver, "h1").text == "night run")

    async with showing(settings) as shown:
        await asyncio.to_thread(look, f"http://127.0.0.1:{shown.visitor.port}")


async def test_a_lost_connection_is_told_and_taken_up_again(tmp_path: Path, driver: Any) -> None:
    settings = shown_settings(tmp_path, worker_command=worker_command("sleep"))
    job = stored_waiting(settings, "slow")

    def notice() -> Any:
        return find(driver, ".notice")

    async with showing(settings) as shown:
        port = shown.visitor.port
        await asyncio.to_thread(driver.get, f"http://127.0.0.1:{port}/jobs/{job}")
        await asyncio.to_thread(seen, driver, lambda: "epoch 1" in find(driver, "[data-live]").text)
    await asyncio.to_thread(seen, driver, lambda: "connection is lost" in notice().text)

    server = create(settings.model_copy(update={"web_address": f"127.0.0.1:{port}"}))
    await server.start()
    try:
        await asyncio.to_thread(seen, driver, lambda: not notice().is_displayed())
        await asyncio.to_thread(seen, driver, lambda: "attempt 2" in find(driver, "[data-log]").text)
    finally:
        await asyncio.to_thread(driver.get, "about:blank")
        await server.stop()
