# docker build -t headwise . && docker run -p 8501:8501 headwise
FROM python:3.11-slim
WORKDIR /app
COPY requirements.txt .
# The CPU build of torch first; requirements.txt is then satisfied by it.
RUN pip install --no-cache-dir torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu \
 && pip install --no-cache-dir -r requirements.txt
COPY . .
RUN useradd --create-home headwise
USER headwise
EXPOSE 8501
HEALTHCHECK CMD python -c "import urllib.request as u; u.urlopen('http://localhost:8501/readyz')"
CMD ["streamlit", "run", "app.py", "--server.address=0.0.0.0", "--server.headless=true"]
